#!/usr/bin/env bash
# Writes man pages from what --help says: FOLDER/man1/mpreg.1, and mpreg-COMMAND.1 of each command.
#
#   tools/man.sh BINARY FOLDER
set -euo pipefail
binary=$1 folder=$2
version=$("$binary" --version | sed 's/^mpreg //')
date=$(date -u -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}" +%Y-%m-%d)
rm -rf "$folder/man1"
mkdir -p "$folder/man1"

# The lines "  NAME  SUMMARY" under "Commands:".
commands() {
    "$binary" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\)  *\(.*\)$/\1 \2/p'
}

# page NAME SUMMARY SEE <help: NAME is a page's, "mpreg" or "mpreg-call"; SEE the pages to see also.
# Help is a usage line, paragraphs, and sections: lists of names with their texts, or an example.
page() {
    awk -v name="$1" -v summary="$2" -v see="$3" -v version="$version" -v date="$date" '
        function roff(line) {
            gsub(/\\/, "\\e", line)
            gsub(/-/, "\\-", line)
            # Else they are set as typographic quotes and accents, and no shell takes those.
            gsub(/\x27/, "\\(aq", line)
            gsub(/\^/, "\\(ha", line)
            gsub(/~/, "\\(ti", line)
            return line ~ /^\./ ? "\\&" line : line
        }
        # A line of a list: "  NAME  TEXT", "  NAME" with its text below, or more text.
        function definition(line) {
            if (line ~ /^            /) {
                sub(/^ +/, "", line)
                print roff(line)
                return
            }
            sub(/^ +/, "", line)
            text = ""
            if (match(line, /  +/)) {
                text = substr(line, RSTART + RLENGTH)
                line = substr(line, 1, RSTART - 1)
            }
            print ".TP\n\\fB" roff(line) "\\fR"
            if (text != "") print roff(text)
        }
        BEGIN {
            print ".TH " toupper(name) " 1 " date " \"mpreg " version "\" \"User Commands\""
            print ".SH NAME\n" roff(name) " \\- " roff(summary)
        }
        NR == 1 {
            sub(/^Usage: /, "")
            print ".SH SYNOPSIS\n" roff($0) "\n.SH DESCRIPTION"
            next
        }
        /^Example:$/ { print ".SH EXAMPLES\n.nf"; section = "example"; next }
        section == "example" { sub(/^  /, ""); print roff($0); next }
        /^[A-Z][a-z]+:$/ {
            sub(/:$/, "")
            print ".SH " ($0 == "Flags" ? "OPTIONS" : toupper($0))
            section = "list"
            is_blank = 0
            next
        }
        $0 == "" { is_blank = 1; next }
        {
            if (is_blank && NR > 3) print ".PP"
            is_blank = 0
            if (section == "list" && /^ /) definition($0); else print roff($0)
        }
        END {
            if (section == "example") print ".fi"
            print ".SH SEE ALSO"
            count = split(see, pages, " ")
            for (i = 1; i <= count; i++)
                print ".BR " roff(pages[i]) " (1)" (i < count ? "," : "")
        }' >"$folder/man1/$1.1"
}

pages=''
while read -r command summary; do
    "$binary" "$command" --help | page "mpreg-$command" "${summary%.}" mpreg
    pages+=" mpreg-$command"
done < <(commands)
[ -n "$pages" ] || {
    echo "tools/man.sh: '$binary --help' lists no commands" >&2
    exit 1
}
"$binary" --help | page mpreg "Lua functions and pipelines on a cluster of nodes" "$pages"
