# SPDX-License-Identifier: GPL-2.0-or-later
# SysRift in GDB:  (gdb) source sysrift.gdb    then    (gdb) sysrift-replay [TRACE]

python
def _sysrift_load():
    import os
    import shutil
    import subprocess
    import sys

    # A sourced script is not told its own name, but GDB has it open.
    here = None
    for fd in os.listdir("/proc/self/fd"):
        try:
            path = os.readlink("/proc/self/fd/" + fd)
        except OSError:
            continue
        if os.path.basename(path) == "sysrift.gdb":
            here = os.path.dirname(path)
    if here is None:
        raise gdb.GdbError("SysRift: source sysrift.gdb by its path")

    def add(folder):
        # At the end: GDB's own modules come first, whatever else lies in that folder.
        if folder and folder not in sys.path and os.path.isdir(folder):
            sys.path.append(folder)

    if os.path.isdir(os.path.join(here, "sysrift_gdb")):
        add(here)
        add(os.path.dirname(here))
        libraries = os.path.join(os.path.dirname(here), ".venv", "lib")
        if os.path.isdir(libraries):
            for version in sorted(os.listdir(libraries)):
                add(os.path.join(libraries, version, "site-packages"))
    else:
        add(os.path.dirname(here))

    def missing():
        import importlib.util

        return [n for n in ("construct", "pygments") if importlib.util.find_spec(n) is None]

    if missing():
        # GDB's Python is not the one SysRift was installed for: ask that one where things are.
        command = shutil.which("python3")
        if command:
            where = "import construct,os;print(os.path.dirname(os.path.dirname(construct.__file__)))"
            found = subprocess.run(
                [command, "-c", where], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
            if found.returncode == 0:
                add(found.stdout.decode().strip())
    if "construct" in missing():
        raise gdb.GdbError(
            "SysRift: GDB's Python %d.%d cannot import construct: install SysRift with pip, or "
            "run: pip install construct pygments" % sys.version_info[:2]
        )
    import sysrift_gdb

    sysrift_gdb.install()


try:
    _sysrift_load()
except (gdb.GdbError, ImportError) as _sysrift_error:
    # Python's own way to say it would be a traceback.
    gdb.write(str(_sysrift_error) + "\n", gdb.STDERR)
    del _sysrift_error
del _sysrift_load
end

define hook-detach
python sysrift_gdb.hooks.before_detach()
end

define hookpost-delete
python sysrift_gdb.hooks.after_breakpoints_changed()
end

define hookpost-disable
python sysrift_gdb.hooks.after_breakpoints_changed()
end

define hook-starti
python sysrift_gdb.hooks.before_starti()
end

define hookpost-starti
python sysrift_gdb.hooks.after_starti()
end

define hook-next
maintenance sysrift before-resuming
python sysrift_gdb.hooks.before_stepping_by_line()
end

define hook-step
maintenance sysrift before-resuming
python sysrift_gdb.hooks.before_stepping_by_line()
end

define hook-until
maintenance sysrift before-resuming
python sysrift_gdb.hooks.before_stepping_by_line()
end

define hook-continue
maintenance sysrift before-resuming
end

define hook-stepi
maintenance sysrift before-resuming
end

define hook-nexti
maintenance sysrift before-resuming
end

define hook-finish
maintenance sysrift before-resuming
end

define hook-advance
maintenance sysrift before-resuming
end

define hook-print
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-print
python sysrift_gdb.hooks.after_evaluating()
end

define hook-call
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-call
python sysrift_gdb.hooks.after_evaluating()
end

define hook-output
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-output
python sysrift_gdb.hooks.after_evaluating()
end

define hook-printf
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-printf
python sysrift_gdb.hooks.after_evaluating()
end

define hook-x
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-x
python sysrift_gdb.hooks.after_evaluating()
end

define hook-display
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-display
python sysrift_gdb.hooks.after_evaluating()
end

define hook-eval
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-eval
python sysrift_gdb.hooks.after_evaluating()
end

define hook-set
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-set
python sysrift_gdb.hooks.after_evaluating()
end

define set hook-variable
python sysrift_gdb.hooks.before_evaluating()
end

define set hookpost-variable
python sysrift_gdb.hooks.after_evaluating()
end

define hook-return
python sysrift_gdb.hooks.before_evaluating()
end

define hookpost-return
python sysrift_gdb.hooks.after_return()
end

define hook-jump
maintenance sysrift before-resuming
python sysrift_gdb.hooks.after_return()
end
