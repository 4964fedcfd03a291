"""On-policy distillation: a token's credit is how much likelier a teacher finds it than the policy that sampled it."""

from amrsd_jax.credit.base import Rule
from amrsd_jax.credit.feedback_alignment import feedback_alignment, needs_teacher

# A_t = coef (l_T - l_S), the sampled-token form of KL(S || T) (arXiv 2306.13649), as code bases such as SkyRL and ms-swift have
# it. Their teacher is a larger model that sees the student's own prompt: teacher.kind = external, external.workdir,
# credit.context = question. Without another model the policy stands in for it, with a correct peer's solution in its prompt
# (our choice). The rule `hybrid` adds the same to the reward's advantage.
RULE = Rule("opd", feedback_alignment, needs_teacher, context="peer_solution")
