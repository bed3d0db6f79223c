#!/usr/bin/env bash
# Writes man pages and shell completion from what --help says: FOLDER/man1/mpreg.1, one page a
# command, and FOLDER/mpreg.bash.
#
#   tools/man.sh BINARY FOLDER
set -euo pipefail
binary=$1 folder=$2
version=$("$binary" --version | sed 's/^mpreg //')
rm -rf "$folder/man1"
mkdir -p "$folder/man1"

# The lines "  NAME  SUMMARY" under "Commands:".
commands() {
    "$binary" --help | sed -n '/^Commands:/,/^$/s/^  \([a-z][a-z-]*\)  *\(.*\)$/\1 \2/p'
}

# page NAME SUMMARY <help: NAME is a page's, "mpreg" or "mpreg-call".
page() {
    awk -v name="$1" -v summary="$2" -v version="$version" '
        function roff(line) {
            gsub(/\\/, "\\e", line)
            gsub(/-/, "\\-", line)
            return line ~ /^[.\x27]/ ? "\\&" line : line
        }
        NR == 1 {
            upper = toupper(name)
            print ".TH " upper " 1 \"\" \"mpreg " version "\" \"User Commands\""
            print ".SH NAME\n" roff(name) " \\- " roff(summary)
            sub(/^Usage: /, "")
            print ".SH SYNOPSIS\n" roff($0) "\n.SH DESCRIPTION\n.nf"
            next
        }
        NR == 2 && $0 == "" { next }
        { print roff($0) }
        END { print ".fi" }'
}

"$binary" --help | page mpreg "Lua functions and pipelines on a cluster of nodes" >"$folder/man1/mpreg.1"
words='' cases=''
while read -r command summary; do
    help=$("$binary" "$command" --help)
    page "mpreg-$command" "${summary%.}" <<<"$help" >"$folder/man1/mpreg-$command.1"
    flags=$(grep -oE '^ +(-[a-zA-Z], )? *--[a-z][a-z-]*' <<<"$help" | grep -oE -- '--?[a-zA-Z][a-z-]*' |
        sort -u | tr '\n' ' ')
    words+="$command "
    cases+="    $command) words=\"${flags% }\" ;;"$'\n'
done < <(commands)
[ -n "$words" ] || {
    echo "tools/man.sh: '$binary --help' lists no commands" >&2
    exit 1
}

cat >"$folder/mpreg.bash" <<END
# Completion of mpreg's commands and flags for bash; made from --help.
_mpreg()
{
    local current="\${COMP_WORDS[COMP_CWORD]}" word command="" words=""
    for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case "\$word" in
        -*) ;;
        *) command=\$word && break ;;
        esac
    done
    case "\$command" in
    "") words="${words}--help --version" ;;
${cases}    esac
    case "\$current" in
    -*) ;;
    *) [ -z "\$command" ] || words="" ;;
    esac
    COMPREPLY=(\$(compgen -W "\$words" -- "\$current"))
}
complete -o default -F _mpreg mpreg
END
