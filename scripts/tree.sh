#!/bin/sh
# Prints one hash for all files of the working tree that git does not ignore. Neither the index nor
# the object store of the repository is touched, and no commit is needed.
set -eu
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
mkdir "$store/objects"
index=$(git rev-parse --git-path index)
[ ! -f "$index" ] || cp "$index" "$store/index" # remembers what was hashed before
GIT_ALTERNATE_OBJECT_DIRECTORIES=$(cd "$(git rev-parse --git-path objects)" && pwd)
GIT_OBJECT_DIRECTORY=$store/objects
GIT_INDEX_FILE=$store/index
export GIT_ALTERNATE_OBJECT_DIRECTORIES GIT_OBJECT_DIRECTORY GIT_INDEX_FILE
git -c core.safecrlf=false add -A .
git write-tree
