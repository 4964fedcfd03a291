# ruff: noqa: E501  (a program is one line)
"""Programs that try to pass without solving the task, to hang, to break out, or to leave something behind. None solves it.

The task is a function f(a, b) that adds, or a script that adds two numbers of a line.
"""

MARK = "hostile_program_mark"  # of files that programs try to leave

_ALWAYS = (
    "class Always({base}):\n"
    "    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = __bool__ = lambda *args: True\n"
    "    __hash__ = {base}.__hash__\n"
    "    __len__ = lambda self: 1\n"
    "    __class__ = int\n"
)
RETURNS = {  # what a function returns
    **{f"equal {base}": (_ALWAYS.format(base=base), "Always()") for base in ("object", "int", "str", "list", "dict", "tuple", "float")},
    "not implemented": ("", "NotImplemented"), "nan": ("", "float('nan')"), "none": ("", "None"), "true": ("", "True"),
    "itself": ("", "f"), "type": ("", "int"), "exception": ("", "AssertionError()"), "generator": ("", "(x for x in [a])"),
    "cycle": ("", "(lambda x: x.append(x) or x)([])"), "deep": ("", "__import__('functools').reduce(lambda x, _: [x], range(10**5), [])"),
    "huge": ("", "'x' * 10**8"), "big number": ("", "1 << 10**7"), "mock": ("from unittest.mock import ANY\n", "ANY"),
    "collisions": ("", "{k * (2**61 - 1) for k in range(20000)}"),
}  # fmt: skip

_SOCKET = "import socket; s = socket.socket(); s.settimeout(1)\n"
STATEMENTS = {  # run while the program is loaded, in a call, or in a script
    "exit": "import sys; sys.exit(0)",
    "os exit": "import os; os._exit(0)",
    "abort": "import os; os.abort()",
    "raise": "raise SystemExit(0)",
    "interrupt": "raise KeyboardInterrupt",
    "assertion": "raise AssertionError",
    "kill itself": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "kill parent": "import os, signal; os.kill(os.getppid(), signal.SIGKILL)",
    "kill all": "import os, signal\nfor pid in [-1, *range(1, 100)]:\n    try: os.kill(pid, signal.SIGKILL)\n    except OSError: pass",
    "kill group": "import os, signal; os.killpg(0, signal.SIGKILL)",
    "stop": "import os, signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "daemons": "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        os.setsid(); time.sleep(1000)",
    "subprocess": "import subprocess; subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)",
    "orphan answers": "import os\nif os.fork(): os._exit(0)",
    "memory": "x = []\nwhile True: x.append(bytearray(10**8))",
    "memory at once": "x = 'x' * 10**12",
    "list of lists": "x = [0]\nwhile True: x += x",
    "number": "x = 9 ** 9 ** 9",
    "loop": "while True: pass",
    "caught loop": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "ignored signals": "import signal\nfor n in range(1, 64):\n    try: signal.signal(n, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
    "sleep": "import time; time.sleep(1000)",
    "stdin": "import sys\nwhile True: sys.stdin.read()",
    "input": "input()\ninput()\ninput()",
    "output": "while True: print('x' * 10000)",
    "stderr": "import sys\nwhile True: print('x' * 10000, file=sys.stderr)",
    "raw output": "import os\nwhile True: os.write(1, b'7\\n' * 10000)",
    "every descriptor": "import os\nfor fd in range(256):\n    try: os.write(fd, b'{\"tests\": 1, \"passed\": 1, \"first\": null}\\n')\n    except OSError: pass",
    "fake frames": "import os, struct\nm = b'{\"plain\": 7}'\nfor _ in range(9):\n    try: os.write(3, struct.pack('!I', len(m)) + m)\n    except OSError: pass",
    "huge frame": "import os\nos.write(3, b'\\xff' * 10**6)",
    "no frame": "import os, struct\nos.write(3, struct.pack('!I', 9) + b'[[[[[[[[[')",
    "deep frame": "import os, struct\nm = b'[' * 10**6\nos.write(3, struct.pack('!I', len(m)) + m)",
    "close": "import os; os.closerange(0, 256)",
    "file": f"open('/tmp/{MARK}', 'w').write('x'); open('{MARK}', 'w').write('x')",
    "large file": f"f = open('{MARK}', 'wb')\nwhile True: f.write(b'x' * 10**7)",
    "many files": f"import itertools\nfor i in itertools.count(): open(f'{MARK}{{i}}', 'wb').write(b'x' * 10**5)",
    "write outside": f"import os\nfor d in ('/', '/usr', '/etc', '/root', '/home', '/var/tmp', '/dev/shm', '/dev', '/checker', '/checker/inside'):\n    try: os.makedirs(d, exist_ok=True); open(d + '/{MARK}', 'w').write('x')\n    except OSError: pass\nraise AssertionError",
    "replace checker": "import os\nfor name in os.listdir('/checker/inside'): open('/checker/inside/' + name, 'w').write('')",
    "descriptors": "import os\nx = [os.open('/dev/null', 0) for _ in range(10**6)]",
    "read tests": "import os\nfor d, _, names in os.walk('/'):\n    for n in names:\n        if n.endswith(('.jsonl', '.json', '.parquet')): print(open(d + '/' + n).read())\nraise ValueError",
    "parent's memory": "import os; open(f'/proc/{os.getppid()}/mem', 'rb').read()",
    "own memory": "import gc, sys\nfor o in gc.get_objects():\n    if isinstance(o, dict) and ('tests' in o or 'cases' in o): raise SystemError(str(o))\nraise ValueError",
    "frames": "import sys\nframe = sys._getframe()\nwhile frame:\n    for name, value in list(frame.f_locals.items()):\n        if name in ('suite', 'expected', 'tests', 'cases'): raise SystemError(str(value))\n    frame = frame.f_back\nraise ValueError",
    "network": _SOCKET + "s.connect(('127.0.0.1', 22))",
    "dns": "import socket; socket.getaddrinfo('example.com', 80)",
    "abstract socket": "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0x'); s.listen(); s.accept()",
    "mount": "import ctypes; c = ctypes.CDLL(None); assert c.mount(b'proc', b'/tmp', b'proc', 0, 0) == 0",
    "namespace": "import ctypes; c = ctypes.CDLL(None); assert c.unshare(0x10000000) == 0",
    "ptrace": "import ctypes; c = ctypes.CDLL(None); assert c.ptrace(16, 1, 0, 0) == 0",
    "setuid": "import os; os.setuid(1)",
    "root": "import os; os.chroot('/tmp'); os.chdir('/')\nraise ValueError",
    "limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (10**6, 10**6))\nwhile True: pass",
    "exit hook": "import atexit, os; atexit.register(os._exit, 0); raise ValueError",
    "exit sleep": "import atexit, time; atexit.register(time.sleep, 1000); raise SystemExit",
    "exit loop": "import atexit\ndef again(): atexit.register(again); again()\natexit.register(again); raise SystemExit",
    "threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
    "daemon thread": "import threading\ndef spin():\n    while True: pass\nfor _ in range(4): threading.Thread(target=spin, daemon=True).start()\nraise ValueError",
    "waiting thread": "import threading, time; threading.Thread(target=time.sleep, args=(1000,)).start(); raise SystemExit",
    "recursion": "def g(): return g()\ng()",
    "deep recursion": "import sys; sys.setrecursionlimit(10**9)\ndef g(): return g()\ng()",
    "null pointer": "import ctypes; ctypes.string_at(0)",
    "patched builtins": "import builtins\nfor n in ('abs', 'all', 'isinstance', 'len', 'repr', 'set', 'sorted', 'tuple', 'AssertionError'): setattr(builtins, n, lambda *a, **k: True)",
    "patched json": "import json\njson.dumps = lambda *a, **k: '{\"plain\": 7}'\njson.loads = lambda *a, **k: {'do': 'list', 'on': 0}",
    "patched plain": "import sys\nfor m in list(sys.modules.values()):\n    for n in ('encode', 'decode', 'send', 'receive', 'record', 'run'):\n        if hasattr(m, n) and 'inside' in getattr(m, '__name__', ''): setattr(m, n, lambda *a, **k: {'plain': 7})",
    "trace": "import sys; sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None); raise ValueError",
    "hook": "import sys; sys.excepthook = lambda *a: None; sys.displayhook = None; raise ValueError",
    "regex": "import re; re.match('(a|aa)+$', 'a' * 100 + 'b')",
    "syntax": "def",
    "nested syntax": "(" * 5000,
    "null byte": "x = '\x00'",
    "surrogate": "raise ValueError('\\ud800')",
    "long error": "raise ValueError('x' * 10**7)",
    "odd error": "class E(BaseException):\n    def __str__(self): raise SystemExit\nraise E",
    "group": "import os; os.setpgid(0, 0); os.setsid()",
    "queue": "import ctypes; c = ctypes.CDLL(None); [c.msgget(n, 0o1000 | 0o666) for n in range(1, 1000)]; raise ValueError",
    "mute": "import sys, os; os.dup2(os.open('/dev/null', 1), 3)",
}  # fmt: skip


def _indented(code):
    return "\n".join("    " + line for line in code.split("\n"))


def functions():
    """Yields (name, program) where tests call f."""
    wrong = "def f(a, b):\n    return a - b - 1\n"
    for name, (before, value) in RETURNS.items():
        yield f"returns {name}", f"{before}def f(a, b):\n    return {value}\n"
        yield f"returns list of {name}", f"{before}def f(a, b):\n    return [{value}]\n"
        yield f"is {name}", f"{before}f = {value}\n" if value != "f" else "f = 1\n"
    for name, code in STATEMENTS.items():
        yield f"loads {name}", f"{code}\n{wrong}"
        yield f"loads {name} after", f"{wrong}{code}\n"
        yield f"calls {name}", f"def f(a, b):\n{_indented(code)}\n    return a - b - 1\n"


def scripts():
    """Yields (name, program) where tests give an input."""
    for name, code in STATEMENTS.items():
        yield f"runs {name}", f"{code}\nprint(-1)\n"
