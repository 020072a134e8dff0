# Sets up what every script needs: a virtual environment in .venv, uv in it, the locked dependencies.
# Sourced, not run. Does nothing when the lock file has not changed since the last time.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv="$root/.venv"
# Hospital networks often have a certificate authority of their own: trust what the machine trusts.
export UV_SYSTEM_CERTS=1

fail() {
  printf '%s\n' "$*" >&2
  exit 2
}

find_python() {
  local candidate
  for candidate in ${SAMD_PYTHON:-} python3.11 python3.12 python3.13 python3; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  fail "No Python 3.11, 3.12 or 3.13 was found. Install one (Debian: apt-get install python3 python3-venv), or name it: SAMD_PYTHON=/path/to/python3.11 $0"
}

setup() {
  local python wanted stamp="$venv/.samd-setup"
  wanted=$(cat "$root/uv.lock" "$root/pyproject.toml" "$root"/*/pyproject.toml | cksum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && return
  if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python) || exit 2
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
      fail "$python has no venv module. Install it (Debian: apt-get install python3-venv), then try again."
    printf 'Setting up .venv with %s\n' "$("$python" --version)" >&2
    "$python" -m venv "$venv" || fail "The virtual environment could not be made in $venv: is the disk full, or the folder read-only?"
  fi
  if [ ! -x "$venv/bin/uv" ]; then
    "$venv/bin/python" -m pip install --quiet 'uv>=0.11,<1' 2>"$venv/setup.log" || {
      tail -n 3 "$venv/setup.log" >&2
      fail "uv could not be installed: is there a network? Behind a proxy set HTTPS_PROXY, then try again."
    }
  fi
  printf 'Installing the locked dependencies (about 2 GB with TensorFlow; the first time takes minutes)\n' >&2
  # --inexact: uv and pip, which are not in the lock, stay.
  (cd "$root" && UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT="$venv" "$venv/bin/uv" sync --locked --inexact --all-packages --quiet) ||
    fail "The dependencies could not be installed. Without a network set it up once while online; a missing wheel means that this Python or processor is not supported (3.11 to 3.13 on x86-64 or arm64)."
  printf '%s' "$wanted" >"$stamp"
}
