"""Runs a program's tests in the checker: assertions, calls of a function with expected values, or inputs with expected outputs.

The result of a test is None if it passed, or a dict that says how it failed: `input`, `expected` and `got`, texts where they are
known, `failure`, one of wrong, error, timed out, ended and unplain, and details of that.
"""

import ast
import builtins
from decimal import Decimal, InvalidOperation

from .remote import Failure, Reference, lookup, text

_TEST = "__test__"  # name of the context manager around each test


class _Stop(BaseException):
    """Ends a suite of assertions."""


def run(suite, program, limits):
    """Returns how many tests there are, how many of them passed, and the first failure, None without one.

    After a test that ran out of time the remaining ones are not run; they count as failed.

    Args:
      suite: {"kind": "asserts", "calls" or "script", ...}, see the functions of these names.
      program: `remote.Program`.
      limits: `partial`, whether tests are run after the first failure, and `output`, bytes that a script may write.
    """
    passed, first, total = 0, None, SUITES[suite["kind"]][0](suite)

    def record(result):
        nonlocal passed, first
        passed += result is None
        first = first or result
        return result is None or (limits["partial"] and result["failure"] != "timed out")  # whether to go on

    SUITES[suite["kind"]][1](suite, program, limits, record)
    if first is None and passed < total:  # tests were left out
        first = {"failure": "wrong", "input": None, "expected": None, "got": None}
    most = total if first is None else total - 1  # what failed may have been a statement between the tests
    return {"tests": total, "passed": min(passed, most), "first": first}


# ---------------------------------------------------------------- assertions


def is_test(statement):
    """Whether a statement asserts something that is not a constant; not in a function, which may never be called."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return False
    if isinstance(statement, ast.Assert):
        return not isinstance(statement.test, ast.Constant)
    return any(map(is_test, ast.iter_child_nodes(statement)))


def body(tree):
    """Returns the list of statements that holds the tests: that of the function `check`, or the whole module."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    return functions[-1].body if functions else tree.body


def asserts(suite, program, limits, record):
    """Runs assertions, `tests`, after `setup`. Names that neither defines are the program's.

    A module that defines `check(candidate)`, as HumanEval has it, is run as that function of the program's `function`; then
    `setup` is source of the row beside it, whose helpers the tests may use.
    """
    tree = ast.parse(suite["tests"])
    statements = body(tree)
    checks = statements is not tree.body
    setup = ast.parse(suite.get("setup") or "")
    if checks:
        names = [suite["function"]]
        tree.body = [node for node in tree.body if not isinstance(node, ast.Expr)]  # no call of `check` of its own
    else:
        tree.body[:0] = setup.body
        statements = tree.body
        names = free_names(tree)
    sources = {}
    for place, statement in enumerate(statements):
        if is_test(statement):
            sources[place] = statement
            call = ast.Call(ast.Name(_TEST, ast.Load()), [ast.Constant(place)], [])
            guarded = ast.With([ast.withitem(call)], [statement])
            statements[place] = ast.fix_missing_locations(ast.copy_location(guarded, statement))
    namespace = {"__name__": "tests"}
    bound = None

    def bind():
        """Gives the tests the names of the program's process, if it is another one than before."""
        nonlocal bound
        program.load()
        if bound == program.process:
            return
        bound = program.process
        for name in names:
            try:
                namespace[name] = lookup(program, name)
            except KeyError:
                namespace.pop(name, None)

    class Test:
        def __init__(self, place):
            self.statement = sources[place]

        def __enter__(self):
            program.last_call = program.last_value = None
            try:
                bind()
            except Failure as failure:
                record(_failed(failure, self.statement, program))
                raise _Stop from None

        def __exit__(self, kind, error, trace):
            if error is not None and not isinstance(error, Exception):
                return False
            if not record(error and _failed(error, self.statement, program)):
                raise _Stop
            return True

    namespace[_TEST] = Test
    try:
        if checks:
            exec(compile(setup, "<setup>", "exec"), namespace)
        else:
            bind()
        exec(compile(tree, "<tests>", "exec"), namespace)
        if checks:
            namespace["check"](lambda *args, **kwargs: namespace[suite["function"]](*args, **kwargs))
    except _Stop:
        pass
    except Exception as error:  # of a statement between the tests
        record(_failed(error, None, program))
    finally:
        program.stop()


def free_names(tree):
    """Returns names that a module reads and does not bind, which the program must define.

    Built-in functions are Python's own, so that a program cannot replace what tests compare with; unless the tests name nothing
    else, as those of a function called `sum`.
    """
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ExceptHandler):
            bound.add(node.name)
    read = {node.id for node in names} - bound
    return sorted({name for name in read if not hasattr(builtins, name)} or read)


def _failed(error, statement, program):
    """Returns how a test failed, by what was raised in it."""
    result = {"failure": "wrong", "input": program.last_call, "expected": None, "got": program.last_value}
    if statement is not None:
        result["expected"] = ast.unparse(statement)[:300]
        test = statement.test if isinstance(statement, ast.Assert) else None
        if isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            result["expected"] = ast.unparse(test.comparators[0])[:300]
    if isinstance(error, Failure):
        return result | {"failure": error.kind, **error.details}
    if not isinstance(error, AssertionError) and program.last_call is None:
        return result | {"failure": "error", "type": type(error).__name__, "message": text(str(error)), "line": None}
    return result


# ---------------------------------------------------------------- cases


def calls(suite, program, limits, record):
    """Calls `function`, or the method of that name of a class `Solution`, with the arguments of each of `cases`, pairs of a list
    of arguments and an expected value, both JSON values. A tuple equals a list. Where the suite is `wrapped`, the expected value
    is a list of one, whose content is right too. Each case has a process of its own.
    """
    for arguments, expected in suite["cases"]:
        program.last_call = program.last_value = None
        result = {"input": f"{suite['function']}({', '.join(map(text, arguments))})", "expected": text(expected)}
        try:
            value = function(program, suite["function"])(*arguments)
            if type(value) is Reference:
                raise Failure("unplain", type=value._type)
            value = listed(value)
            right = value == expected or ("wrapped" in suite and value == expected[0])
            result = None if right else result | {"failure": "wrong", "got": text(value)}
        except Failure as failure:
            result |= {"failure": failure.kind, "got": None, **failure.details}
        except RecursionError:
            result |= {"failure": "unplain", "got": None, "type": "value nested too deep"}
        finally:
            program.stop()
        if not record(result) or program.failed_to_load:
            break


def function(program, name):
    """Returns a function of the program, or a method of its class `Solution`."""
    try:
        return lookup(program, name)
    except KeyError:
        method = program.ask("method", name=name)
        if type(method) is Reference:
            method.__dict__["_name"] = name
        return method


def listed(value):
    """Returns a plain value with lists in place of tuples, as JSON has them."""
    if isinstance(value, (list, tuple)):
        return [listed(item) for item in value]
    return {key: listed(item) for key, item in value.items()} if isinstance(value, dict) else value


def script(suite, program, limits, record):
    """Runs the program on the input of each of `cases`, pairs of texts, and compares its output, see `same_output`."""
    for given, expected in suite["cases"]:
        result = {"input": cut(given), "expected": cut(expected)}
        try:
            written = program.run(given, limits["output"]).decode("utf-8", "replace")
            result = None if same_output(written, expected) else result | {"failure": "wrong", "got": cut(written)}
        except Failure as failure:
            result |= {"failure": failure.kind, "got": None, **failure.details}
        if not record(result):
            break


def same_output(written, expected):
    """Whether two outputs have the same lines, without space around them and empty lines at the end.

    Lines may also have the same words, where two decimal numbers of equal value are the same.
    """
    lines = [[line.strip() for line in text.strip().split("\n")] for text in (written, expected)]
    return len(lines[0]) == len(lines[1]) and all(map(_same_line, *lines))


def _same_line(written, expected):
    return written == expected or (
        len(written.split()) == len(expected.split()) and all(map(_same_word, written.split(), expected.split()))
    )


def _same_word(written, expected):
    if written == expected:
        return True
    try:
        return len(written) < 100 and Decimal(written) == Decimal(expected)
    except InvalidOperation:
        return False


def cut(value, longest=300):
    """Returns a text, cut."""
    return value if len(value) <= longest else value[:longest] + "..."


def count_asserts(suite, parse=ast.parse):
    return sum(map(is_test, body(parse(suite["tests"]))))


SUITES = {  # number of tests, and what runs them
    "asserts": (count_asserts, asserts),
    "calls": (lambda suite: len(suite["cases"]), calls),
    "script": (lambda suite: len(suite["cases"]), script),
}
