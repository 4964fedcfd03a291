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
    "collisions": ("", "{k * (2**61 - 1) for k in range(20000)}"), "complex": ("", "complex(7, 0)"), "text": ("", "str(a + b)"),
    "bytes": ("", "bytes([3])"), "set": ("", "{a + b}"), "deep dict": ("", "__import__('functools').reduce(lambda x, _: {0: x}, range(99), 0)"),
    "lazy": ("", "type('L', (int,), {'__int__': lambda s: 7, '__index__': lambda s: 7})()"), "infinite": ("", "iter(int, 1)"),
    "magic": ("from unittest.mock import MagicMock\n", "MagicMock()"), "not finite": ("", "float('inf')"), "surrogates": ("", "'\\ud800' * 3"),
}  # fmt: skip

_FRAME = (  # sends the checker a message
    "import os, struct, json\n"
    "def frame(value):\n"
    "    text = value if isinstance(value, bytes) else json.dumps(value).encode()\n"
    "    try: os.write(3, struct.pack('!I', len(text)) + text)\n"
    "    except OSError: pass\n"
)
_LIBC = "import ctypes; c = ctypes.CDLL(None, use_errno=True)\n"
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
    "drip": "import os, time, struct\nos.write(3, struct.pack('!I', 10**6))\nwhile True: os.write(3, b' '); time.sleep(0.5)",
    "late header": "import os, time\nfor _ in range(4): os.write(3, b'\\0'); time.sleep(1.5)",
    "many frames": _FRAME + "while True: frame({'plain': 7})",
    "no values": _FRAME + "for x in ({'int': 'z'}, {'bytes': 'x'}, {'complex': ['1']}, {'set': [[1]]}, {}, {'a': 1, 'b': 2}, {'float': '0x1p99999'}, {'reference': 0}): frame({'plain': x})",
    "no references": _FRAME + "for x in (-1, True, 10**9, '0', None): frame({'reference': x, 'type': '\\ud800'})",
    "verdict": _FRAME + "frame({'tests': 1, 'passed': 1, 'first': None})",
    "errors": _FRAME + "for x in ('AssertionError', 'StopIteration', 'GeneratorExit', 'SystemExit', 'KeyError', 'UnicodeDecodeError', 'ExceptionGroup', '_Stop', 'Failure'): frame({'error': {'type': x}})",
    "huge line": _FRAME + "frame(b'{\"error\": {\"type\": \"ValueError\", \"line\": 1' + b'0' * 4000 + b'}}')",
    "descriptors to the checker": "import socket, os, array\ns = socket.socket(fileno=os.dup(3))\nfor _ in range(50):\n    try: s.sendmsg([b'\\0'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 60))])\n    except OSError: break",
    "out of band": "import socket, os\ntry: socket.socket(fileno=os.dup(3)).send(b'x', socket.MSG_OOB)\nexcept OSError: pass",
    "shutdown": "import socket, os\nsocket.socket(fileno=os.dup(3)).shutdown(2)",
    "flags": "import fcntl, os\nfor fd in range(4):\n    try: fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND)\n    except OSError: pass",
    "sizes": "import os\nfor fd in (0, 1):\n    try: os.ftruncate(fd, 10**7); os.lseek(fd, 10**7, 0)\n    except OSError: pass",
    "reading child": "import os\nif os.fork() == 0:\n    while True: os.read(3, 1000)",
    "answering child": "import os, time\nif os.fork() == 0:\n    os.write(3, b'\\0\\0\\0\\x0c{\"plain\": 7}'); time.sleep(1000)",
    "keyring": _LIBC + f"n = c.syscall(248, b'user', b'{MARK}', b'x', 1, -4)\nif n >= 0: raise SystemError(str(n))",
    "shared memory": _LIBC + "c.shmat.restype = ctypes.c_void_p\nwhile True:\n    p = c.shmat(c.shmget(0, 600 << 20, 0o1600), None, 0)\n    ctypes.memset(p, 1, 600 << 20); c.shmdt(ctypes.c_void_p(p))",
    "memory files": "import os, mmap\nfor i in range(50):\n    f = os.memfd_create('x'); os.ftruncate(f, 15 << 20); mmap.mmap(f, 15 << 20).write(b'x' * (15 << 20))",
    "virtual machine": "import socket; socket.socket(socket.AF_VSOCK)",
    "terminals": "import os\nos.chmod('/dev/pts/ptmx', 0)",
    "devices": "import os\nfor d, _, names in os.walk('/dev'):\n    for n in [d, *(os.path.join(d, x) for x in names)]:\n        try: os.chmod(n, 0); raise SystemError(n)\n        except OSError: pass",
    "shell": "import os; os.execv('/bin/sh', ['sh', '-c', 'echo 7; exit 0'])",
    "set user id": "import subprocess\nfor p in ('/usr/bin/su', '/usr/bin/newgrp', '/bin/mount'): subprocess.run([p, '-c', 'id'], stdin=-3, timeout=1)",
    "sync": "import os\nwhile True: os.sync()",
    "busy children": "import os, time\nfor _ in range(18):\n    if os.fork() == 0:\n        while True: pass\ntime.sleep(1.9)",
    "server again": "from inside import server\nserver.main()",
    "confine again": "from inside import spawner\nspawner.confine([3], {'namespaces': True, 'seconds': 99, 'memory': 1 << 40, 'output': 1 << 40, 'folder': 1 << 30, 'processes': 0}, '/tmp')",
    "closures": "import gc, types\nfor o in gc.get_objects():\n    if isinstance(o, types.FunctionType) and o.__name__ == 'answer':\n        for cell in o.__closure__:\n            if isinstance(cell.cell_contents, dict): cell.cell_contents['call'] = lambda m: 7",
    "odd class": "class M(type):\n    @property\n    def __name__(cls): raise SystemExit\nclass E(Exception, metaclass=M): pass\nraise E",
    "endless text": "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
    "deleted": "import os\nclass D:\n    def __del__(self): os._exit(0)\nx = D(); x.x = x\nraise ValueError",
    "audit": "import sys\nsys.addaudithook(lambda *a: 1 / 0)",
    "timer": "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None); signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)",
    "event loop": "import asyncio\nasyncio.run(asyncio.sleep(1000))",
    "pool": "import multiprocessing as m\nfor _ in range(10): m.get_context('fork').Process(target=lambda: [0 for _ in iter(int, 1)]).start()",
    "input as output": "import os\nos.dup2(0, 1)\nraise ValueError",
    "lines": "import sys\nsys.stdout.write('\\n' * 16000000)",
    "numbers": "print('1e99999999999999')\nprint('sNaN')\nraise SystemExit",
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
