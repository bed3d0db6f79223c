# Completion of mpreg for fish; `mpreg complete` knows what may stand where.

function __mpreg_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -e words[1]
    command -sq -- $program
    or set program mpreg
    for line in (command $program complete -- $words "$current" 2>/dev/null </dev/null)
        set -l parts (string split -m 1 \t -- $line)
        switch $parts[1]
            case ':files' ':folders'
                set -l path (string sub -s (math 1 + (string length -- "$parts[2]")) -- "$current")
                set -l list __fish_complete_path
                test $parts[1] = ':folders'
                and set list __fish_complete_directories
                for found in ($list $path)
                    echo $parts[2]$found
                end
            case '*'
                echo $line
        end
    end
end

complete -c mpreg -f -k -a '(__mpreg_complete)'
