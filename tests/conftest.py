import atexit
import os
import shutil
import signal
import tempfile

# Bit-exact tests need one thread, and several workers on few cores need no more.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"
for name in ("OUTPUT_ROOT", "DATA_ROOT", "GPTOPT_PLUGINS", "GPTOPT_DEADLINE"):
    os.environ.pop(name, None)
# No test reads or leaves a cache of somebody's results.
_cache = tempfile.mkdtemp(prefix="gptopt-tests-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["XDG_CACHE_HOME"] = _cache
# A job in a shell's background, or under nohup, starts with these ignored, and so do its children.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
