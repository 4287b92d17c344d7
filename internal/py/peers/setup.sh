#!/bin/sh
# Sets up the Python environment of the peers and prints the path of its interpreter.
#
# It lies at $XDG_CACHE_HOME (else ~/.cache)/duratune/peers-<hash of the locks>, is made once, and is moved into place
# only when the check at the end has passed. Every wheel is checked against the hash in its lock. Needs python3 (3.11 or
# newer) with venv, gcc and readelf.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/duratune
hash=$(cat "$here/requirements.txt" "$here/torch.txt" "$here/stubs.py" | sha256sum | cut -c1-12)
env=$cache/peers-$hash

for tool in python3 gcc readelf flock; do
	command -v $tool >/dev/null || { echo "peers: $tool is not installed" >&2; exit 1; }
done
mkdir -p "$cache"
exec 9>"$env.lock"
flock 9
if [ -e "$env/ok" ] && "$env/bin/python" -c '' 2>/dev/null; then
	echo "$env/bin/python"
	exit 0
fi

# A venv knows its own path, so it is built in place; the file ok says that it is whole.
rm -rf "$env"
python3 -m venv "$env" >&2
python=$env/bin/python
"$python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r "$here/requirements.txt" >&2
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

# libtorch's cache is the same wheel, unzipped; where it was made for this Python, links save a gigabyte.
lib=$cache/libtorch-2.11.0
ext=$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))')
if [ -e "$lib/torch/_C$ext" ] && [ -e "$lib/torchgen" ] && [ -e "$lib/torch-2.11.0.dist-info/RECORD" ]; then
	for name in torch torchgen functorch torch-2.11.0.dist-info nvidia; do
		cp -al "$lib/$name" "$site/" 2>/dev/null || cp -a "$lib/$name" "$site/"
	done
else
	"$python" -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r "$here/torch.txt" >&2
fi
"$python" "$here/stubs.py" "$site" >&2
"$python" "$here/check.py" >&2
: >"$env/ok"
echo "$python"
