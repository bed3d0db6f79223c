# Completion of mpreg for bash; `mpreg complete` knows what may stand where.

_mpreg()
{
    local program=${COMP_WORDS[0]/#\~/$HOME} rest=${COMP_LINE:0:COMP_POINT}
    local words=() lines=() i word part prefix kind current cut=""
    type -P -- "$program" >/dev/null || program=mpreg

    # The words up to the cursor. Bash also splits them at = and :, so what stands without a space
    # before it belongs to the word before.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        part=${rest#"${rest%%[![:space:]]*}"}
        ((i < COMP_CWORD)) || word=$part
        if ((i == 0)) || [[ $part != "$rest" ]]; then words+=("$word"); else words[-1]+=$word; fi
        rest=${part#"$word"}
    done
    words=("${words[@]#[\"\']}")
    current=${words[-1]}
    words=("${words[@]%[\"\']}")
    words[-1]=$current
    # Readline replaces what it took for the word, which may be the end of ours.
    [[ $current != *"$2" ]] || cut=${current%"$2"}

    if ((COMP_CWORD > 0)) && [[ ${COMP_WORDS[COMP_CWORD - 1]} == *[\<\>] ]]; then
        lines=($':files\t')
    else
        mapfile -t lines < <(command -- "$program" complete -- "${words[@]:1}" 2>/dev/null </dev/null)
    fi
    COMPREPLY=()
    for word in "${lines[@]}"; do
        case $word in
        :files$'\t'* | :folders$'\t'*)
            prefix=${word#*$'\t'} kind=-f
            [[ $word != :folders* ]] || kind=-d
            # Readline quotes paths and marks folders, unless something stands before the path.
            [[ $prefix != "$cut" ]] || compopt -o filenames 2>/dev/null
            while IFS= read -r part; do
                if [[ $prefix != "$cut" ]]; then
                    [[ ! -d $part ]] || part+=/
                    [[ $part != */ ]] || compopt -o nospace 2>/dev/null
                    printf -v part %q "$part"
                fi
                COMPREPLY+=("$prefix$part")
            done < <(part=${current#"$prefix"} && compgen "$kind" -- "${part//\\/}")
            ;;
        *) COMPREPLY+=("${word%%$'\t'*}") ;;
        esac
    done
    COMPREPLY=("${COMPREPLY[@]#"$cut"}")
}
complete -o nosort -F _mpreg mpreg
