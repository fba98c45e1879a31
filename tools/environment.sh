# Sourced by the tools: makes .venv beside the sources and installs the engine with the extras named as arguments.
# Nothing is installed twice: a stamp in .venv remembers setup.cfg and the extras.

say() { printf '\033[1m== %s\033[0m\n' "$*" >&2; }

pick_python() {
    local candidate
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    say "Python 3.10 to 3.14 is needed, and none was found on the PATH (python3 is $(python3 --version 2>&1))"
    exit 1
}

ensure_environment() {
    local extras=$1 stamp
    if [ ! -x .venv/bin/python ]; then
        local python
        python=$(pick_python)
        say "making .venv with $($python --version)"
        if ! "$python" -m venv .venv; then
            say "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv, then run this again"
            rm -rf .venv
            exit 1
        fi
    fi
    stamp=".venv/.engine-$extras-$( (cat setup.cfg pyproject.toml; pwd) | cksum | cut -d' ' -f1)"
    if [ ! -e "$stamp" ]; then
        say "installing the engine with [$extras] into .venv (once)"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check -e ".[$extras]"
        touch "$stamp"
    fi
}
