#!/bin/bash
# docs/settings.md is what the table of settings says. SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/../.." || exit 1
info=${BUILD:-build}/bin/tutti-info
[ -x "$info" ] || { echo "$info is not built"; exit 1; }
"$info" --settings-markdown | diff docs/settings.md - > /dev/null && exit
echo "docs/settings.md is not what src/env.c says: make docs-settings"
"$info" --settings-markdown | diff docs/settings.md -
exit 1
