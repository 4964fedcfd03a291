"""The templates of all prompts, one set per family of tasks; a config can replace each of them.

A template is one user message. Its fields in braces are filled in one pass, so braces in a response are never expanded.
"""

import dataclasses
import re
from collections.abc import Mapping

from amrsd_jax.config import TaskConfig
from amrsd_jax.names import nearest
from amrsd_jax.policy.tokenizer import Message
from amrsd_jax.tasks import registry

Conversation = tuple[tuple[str, str], ...]  # (role, content) of each message

_FIELDS = ("question", "attempt", "verdict", "peer", "reference", "reflection", "answer", "solution")
# Fields without which a template cannot do what it is for.
_NEEDED = {
    "solve": ("question",), "teacher": ("question", "reflection"), "peer": ("peer",), "reference": ("reference",),
    "given_answer": ("answer",), "given_solution": ("solution",),
}  # fmt: skip
_FIELD = re.compile(r"\{(" + "|".join(_FIELDS) + r")\}")


@dataclasses.dataclass(frozen=True)
class Templates:
    """The templates of one family, with their fields.

    Attributes:
      system: system message of prompts that ask for an answer; "" for none.
      solve: asks the question. Fields: question.
      hint: asks for a hint about a correct attempt. Fields: question, attempt, verdict, peer, reference.
      critique: asks for a critique of a wrong attempt. The same fields.
      peer: text of the field {peer} where a correct sibling rollout is shown. Fields: peer.
      reference: text of the field {reference} where a reference solution is shown. Fields: reference.
      teacher: the teacher's prompt: the question and a reflection or another privileged text. It ends as `solve` does, so that
        the gap between the two is due to the text. Fields: question, reflection.
      trace: gives a critic the answer and asks it to repair an attempt from its first wrong step on. Fields: question,
        attempt, answer.
      given_answer, given_solution, given_feedback: the privileged text of methods whose teacher sees the gold answer, a worked
        solution or the verifier's message. Fields: answer; solution; verdict.
    """

    system: str
    solve: str
    hint: str
    critique: str
    peer: str
    reference: str
    teacher: str
    trace: str
    given_answer: str
    given_solution: str
    given_feedback: str

    def question_prompt(self, question: str, conversation: Conversation = ()) -> list[Message]:
        """Returns the messages that ask the policy to answer a question; a conversation (`Problem.messages`) is used as it is."""
        return _messages(conversation) or self._answering(self.solve, question=question)

    def reflection_prompt(
        self, kind: str, question: str, attempt: str, verdict: str, peer: str | None, reference: str | None
    ) -> list[Message]:
        """Returns the messages that ask for a reflection on an attempt.

        Args:
          kind: "hint" or "critique".
          question, attempt, verdict: the question, the response, and the verifier's message about it.
          peer, reference: a correct response of a sibling, and a reference solution; None to leave them out.
        """
        return _user(
            getattr(self, kind),
            question=question,
            attempt=attempt,
            verdict=verdict,
            peer=fill(self.peer, peer=peer) if peer is not None else "",
            reference=fill(self.reference, reference=reference) if reference is not None else "",
        )

    def teacher_prompt(self, question: str, reflection: str, conversation: Conversation = ()) -> list[Message]:
        """Returns the teacher's messages: the question together with a reflection or another privileged text.

        The messages of a conversation before the question stay as they are.
        """
        if conversation:
            return _messages(conversation[:-1]) + _user(self.teacher, question=question, reflection=reflection)
        return self._answering(self.teacher, question=question, reflection=reflection)

    def repair_prompt(self, question: str, attempt: str, answer: str) -> list[Message]:
        """Returns the messages that ask a critic to repair an attempt."""
        return _user(self.trace, question=question, attempt=attempt, answer=answer)

    def _answering(self, template: str, **fields: str) -> list[Message]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return system + _user(template, **fields)


def _messages(conversation: Conversation) -> list[Message]:
    return [{"role": role, "content": content} for role, content in conversation]


def _user(template: str, **fields: str) -> list[Message]:
    return [{"role": "user", "content": fill(template, **fields)}]


def fill(template: str, **fields: str) -> str:
    """Returns the template with {name} replaced by fields[name], in one pass and for known names only."""
    return _FIELD.sub(lambda match: fields.get(match[1], match[0]), template)


FAMILIES = {
    # The embedded tasks. The warm-up teaches these prompts; they are short because each word needs a token of its own.
    "chain": Templates(
        system="",
        solve="{question}",
        hint="{question}\n{attempt}\n right{peer}{reference}\n hint",
        critique="{question}\n{attempt}\n wrong{peer}{reference}\n critique",
        peer="\n peer\n{peer}",
        reference="\n reference\n{reference}",
        teacher="{question}\n{reflection}\n solve",
        trace="{question}\n{attempt}\n#### {answer}\n reference",
        given_answer="#### {answer}",
        given_solution=" peer\n{solution}",
        given_feedback=" {verdict}",
    ),
    # Short questions for small pretrained models, which end with the form of the answer (`tasks.ladder`).
    "ladder": Templates(
        system="Be brief.",  # else the chat templates of some models add a system message of their own
        solve="{question}",
        hint=(
            "Question: {question}\nStudent: {attempt}\nThis is right: {verdict}.{peer}{reference}\n"
            "Say in one sentence what is decisive here, without the result, between <hint> and </hint>."
        ),
        critique=(
            "Question: {question}\nStudent: {attempt}\nThis is wrong: {verdict}.{peer}{reference}\n"
            "Say in one sentence what is wrong and what to do, without the result, between <critique> and </critique>."
        ),
        peer="\nAnother student was right: {peer}",
        reference="\nA right answer: {reference}",
        teacher="Advice: {reflection}\n\n{question}",
        trace=(
            "Question: {question}\nStudent: {attempt}\nThe right result is {answer}.\n"
            "Write the student's answer again, with the first mistake repaired."
        ),
        given_answer="The result is {answer}.",
        given_solution="A right answer: {solution}",
        given_feedback="An earlier attempt was wrong: {verdict}.",
    ),
    "mathematics": Templates(
        system="",
        solve="{question}\n\nReason step by step, and put the final answer within \\boxed{}.",
        hint=(
            "A student answered the problem below correctly.\n\nProblem:\n{question}\n\nThe student's answer:\n{attempt}\n\n"
            "Verifier: {verdict}\n{peer}{reference}\n"
            "Write a hint that would help another student find this path alone: name the decisive idea or step and why "
            "it matters, as an encouraging question if you can. Do not state the final answer and do not solve the "
            "problem again. At most three sentences, between <hint> and </hint>."
        ),
        critique=(
            "A student answered the problem below incorrectly.\n\nProblem:\n{question}\n\nThe student's answer:\n{attempt}\n\n"
            "Verifier: {verdict}\n{peer}{reference}\n"
            "Find the first step that goes wrong. Describe the flaw in your own words rather than quoting the step, then "
            "give the direction of a correct continuation. Do not state the final answer and do not solve the problem "
            "again. At most three sentences, between <critique> and </critique>."
        ),
        peer="\nAnother student's correct answer, for your comparison:\n{peer}\n",
        reference="\nReference solution, for your comparison:\n{reference}\n",
        teacher=(
            "{question}\n\nAdvice from an earlier attempt at this problem:\n{reflection}\n\n"
            "Reason step by step, and put the final answer within \\boxed{}."
        ),
        trace=(
            "A student attempted the problem below.\n\nProblem:\n{question}\n\nThe student's attempt:\n{attempt}\n\n"
            "The correct final answer is {answer}.\n\n"
            "Write a step-by-step solution that follows the attempt: keep every correct step as it is, repair the first "
            "wrong one, and continue from there to the correct final answer. Write the steps only."
        ),
        given_answer="The final answer is {answer}.",
        given_solution="A correct solution, for comparison:\n{solution}",
        given_feedback="The verifier said of an earlier attempt: {verdict}.",
    ),
    # The question lists its options, one per line. For a data set with a system message of its own, replace `system`.
    "choice": Templates(
        system=(
            "You will be given a question and its options. Think it through between <reasoning> and </reasoning>, then give "
            "only the letter of the right option between <answer> and </answer>."
        ),
        solve="{question}",
        hint=(
            "A student chose the right option for the question below.\n\nQuestion:\n{question}\n\nThe student's answer:\n"
            "{attempt}\n\nVerifier: {verdict}\n{peer}{reference}\n"
            "Write a hint for another student: name the fact, the law or the check that tells the options apart and why it "
            "matters, as an encouraging question if you can. Do not name the right option or its letter, and rule out none. "
            "At most three sentences, between <hint> and </hint>."
        ),
        critique=(
            "A student chose a wrong option, or named none, for the question below.\n\nQuestion:\n{question}\n\n"
            "The student's answer:\n{attempt}\n\nVerifier: {verdict}\n{peer}{reference}\n"
            "Find the first statement that goes wrong: a false fact, a wrong value, an option misread, or a form that was not "
            "asked for. Describe the flaw in your own words, then say what to look at instead. Do not name the right option "
            "or its letter. At most three sentences, between <critique> and </critique>."
        ),
        peer="\nAnother student's correct answer, for your comparison:\n{peer}\n",
        reference="\nReference solution, for your comparison:\n{reference}\n",
        teacher="Advice from an earlier attempt at the question below:\n{reflection}\n\n{question}",
        trace=(
            "A student attempted the question below.\n\nQuestion:\n{question}\n\nThe student's attempt:\n{attempt}\n\n"
            "The right option is {answer}.\n\n"
            "Write the reasoning that follows the attempt: keep every correct statement as it is, repair the first wrong one, "
            "and continue from there to the right option. Write the reasoning only."
        ),
        given_answer="The right option is {answer}.",
        given_solution="A correct answer, for comparison:\n{solution}",
        given_feedback="The verifier said of an earlier attempt: {verdict}.",
    ),
    # The question is the whole prompt of a row: the tools, the format of a reply, and the user's request.
    "tools": Templates(
        system="",
        solve="{question}",
        hint=(
            "An assistant was given the task below and made the right calls.\n\nTask:\n{question}\n\nThe assistant's reply:\n"
            "{attempt}\n\nVerifier: {verdict}\n{peer}{reference}\n"
            "Write a hint for another assistant: which words of the user or of the documentation decide what to call and how "
            "to fill it in, and what is easily overlooked. Do not write out a call or the value of an argument. "
            "At most three sentences, between <hint> and </hint>."
        ),
        critique=(
            "An assistant was given the task below and did not make the right calls.\n\nTask:\n{question}\n\n"
            "The assistant's reply:\n{attempt}\n\nVerifier: {verdict}\n{peer}{reference}\n"
            "Find the first call that goes wrong: a tool that does not fit, an argument that the user did not ask for, a value "
            "of the wrong kind, a call too many or too few, or input that is not JSON. Describe the flaw in your own words, "
            "then say where in the task the right choice can be read. Do not write out a call or the value of an argument. "
            "At most three sentences, between <critique> and </critique>."
        ),
        peer="\nAnother assistant's correct reply, for your comparison:\n{peer}\n",
        reference="\nReference reply, for your comparison:\n{reference}\n",
        teacher="Advice from an earlier attempt at the task below:\n{reflection}\n\n{question}",
        trace=(
            "An assistant attempted the task below.\n\nTask:\n{question}\n\nThe assistant's attempt:\n{attempt}\n\n"
            "The right calls are:\n{answer}\n\n"
            "Write the reply that follows the attempt: keep every right call as it is, repair the first wrong one, and "
            "continue from there to the end, in the form that the task asks for. Write the reply only."
        ),
        given_answer="The right calls are:\n{answer}",
        given_solution="A correct reply, for comparison:\n{solution}",
        given_feedback="The verifier said of an earlier attempt: {verdict}.",
    ),
    # A verdict quotes the first test that failed, as far as `task.args.show_tests` allows.
    "code": Templates(
        system="",
        solve="{question}\n\nWrite the whole program in Python, in one block that begins with ```python and ends with ```.",
        hint=(
            "A student wrote a program for the task below that passes all tests.\n\nTask:\n{question}\n\nThe student's answer:\n"
            "{attempt}\n\nTests: {verdict}\n{peer}{reference}\n"
            "Write a hint that would help another student find this program alone: name the decisive idea, or the case that is "
            "easily overlooked, and why it matters, as an encouraging question if you can. Do not write code. "
            "At most three sentences, between <hint> and </hint>."
        ),
        critique=(
            "A student wrote a program for the task below that fails a test.\n\nTask:\n{question}\n\nThe student's answer:\n"
            "{attempt}\n\nTests: {verdict}\n{peer}{reference}\n"
            "Find the first statement or idea that goes wrong. Describe the flaw in your own words rather than quoting the line, "
            "then give the direction of a repair. Do not write code and do not solve the task again. "
            "At most three sentences, between <critique> and </critique>."
        ),
        peer="\nAnother student's correct program, for your comparison:\n{peer}\n",
        reference="\nReference program, for your comparison:\n{reference}\n",
        teacher=(
            "{question}\n\nAdvice from an earlier attempt at this task:\n{reflection}\n\n"
            "Write the whole program in Python, in one block that begins with ```python and ends with ```."
        ),
        trace=(
            "A student attempted the task below.\n\nTask:\n{question}\n\nThe student's attempt:\n{attempt}\n\n"
            "A correct program is:\n{answer}\n\n"
            "Write an answer that follows the attempt: keep every correct part as it is, repair the first wrong one, and "
            "continue from there to a correct program. Write the answer only."
        ),
        given_answer="A correct program:\n{answer}",
        given_solution="A correct program, for comparison:\n{solution}",
        given_feedback="An earlier attempt failed its tests: {verdict}.",
    ),
}


def templates(family: str, **changes: str) -> Templates:
    """Returns the templates of a family, with some replaced.

    Raises:
      ValueError: the family or template is unknown, and the message has the nearest valid one; or a text lacks a field that it
        needs.
    """
    if family not in FAMILIES:
        raise ValueError(f"prompt family {family!r}: {nearest(family, FAMILIES)}")
    known = [field.name for field in dataclasses.fields(Templates)]
    for name, text in changes.items():
        if name not in known:
            raise ValueError(f"reflection.templates.{name}: {nearest(name, known)}")
        for field in _NEEDED.get(name, ()):
            if f"{{{field}}}" not in text:
                raise ValueError(f"reflection.templates.{name} = {text!r}: expected the field {{{field}}} in it")
    return dataclasses.replace(FAMILIES[family], **changes)


def task_templates(task: TaskConfig, changes: Mapping[str, str]) -> dict[str, Templates]:
    """Returns the templates of a task's prompts by `Problem.data_set`.

    Args:
      task: of a validated config.
      changes: texts that `reflection.templates` replaces; a mixture's sets have replacements of their own.

    Raises:
      ValueError: an unknown template, or changes for a mixture; names the field.
    """
    if task.name != "mixture":
        return {"": templates(registry.family(task.name), **changes)}
    for name in changes:
        raise ValueError(
            f"reflection.templates.{name}: each set of a mixture has its own: task.args.<set>.templates.{name}"
        )
    texts = {}
    for data_set, section in task.args.items():
        try:
            texts[data_set] = templates(registry.family(section["name"]), **section["templates"])
        except ValueError as error:
            message = str(error).replace("reflection.templates", f"task.args.{data_set}.templates")
            raise ValueError(message) from None
    return texts


def vocabulary_words(texts: Templates) -> list[str]:
    """Returns the words of a family's templates and the reflection tags, for the vocabulary of an embedded tokenizer."""
    prose = " ".join(_FIELD.sub(" ", text) for text in dataclasses.astuple(texts))
    tags = [f"<{slash}{kind}>" for kind in ("hint", "critique") for slash in ("", "/")]
    return [*tags, *sorted(set(re.findall(r"[A-Za-z]+", prose)))]
