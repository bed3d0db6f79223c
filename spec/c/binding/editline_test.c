/* `mpreg.editline` from Lua: files of its history, and lines typed at a terminal that the spec
 * holds the other end of. The child that edits tells by its exit code whether all was as it
 * expects. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "src/binding/editline.h"

#define WAIT_MS 20000

/* 0, or 1 with what was raised on stderr. */
static int run_lua(const char *code)
{
    lua_State *L = luaL_newstate();
    luaL_openlibs(L);
    lua_pushcfunction(L, mp_editline_open);
    lua_call(L, 0, 1);
    lua_setglobal(L, "editline");
    int status = luaL_dostring(L, code);
    if (status != 0)
        fprintf(stderr, "%s\n", lua_tostring(L, -1));
    lua_close(L);
    return status != 0;
}

static void run_child(int terminal, const char *code)
{
    const char *name = ptsname(terminal);
    setsid();
    int fd = name ? open(name, O_RDWR) : -1;
    if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) != 0)
        _exit(99);
    for (int i = 0; i < 3; i++)
        dup2(fd, i);
    setenv("TERM", "xterm", 1);
    setenv("HOME", "/nonexistent", 1); /* nobody's ~/.editrc */
    setenv("LC_ALL", "C", 1);
    exit(run_lua(code));
}

/* Reads what is shown until `text` is among it; false at the end. */
static bool wait_for(int terminal, const char *text, char *seen, size_t room)
{
    size_t size = 0;
    struct pollfd fd = {.fd = terminal, .events = POLLIN};
    while (size + 1 < room && poll(&fd, 1, WAIT_MS) > 0) {
        ssize_t got = read(terminal, seen + size, room - size - 1);
        if (got <= 0)
            break;
        size += (size_t)got;
        seen[size] = '\0';
        if (strstr(seen, text))
            return true;
    }
    seen[size] = '\0';
    return false;
}

/* Types each text once its prompt is there, "1> " and so on; all that the child expects must be
 * so. */
static void type(const char *code, const char *const *texts)
{
    char seen[65536];
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    assert_true(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0)
        run_child(terminal, code);
    for (char prompt[] = "1> "; *texts; texts++, prompt[0]++) {
        bool is_there = wait_for(terminal, prompt, seen, sizeof(seen));
        ssize_t size = is_there ? write(terminal, *texts, strlen(*texts)) : -1;
        if (size < 0) {
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
            fail_msg("no prompt before '%s', but: %s", *texts, seen);
        }
    }
    bool is_over = wait_for(terminal, "over", seen, sizeof(seen));
    if (!is_over)
        kill(child, SIGKILL);
    int status = 0;
    waitpid(child, &status, 0);
    close(terminal);
    if (!is_over || status != 0)
        fail_msg("status %d: %s", status, seen);
}

#define OPEN "editline.open('spec', 10, function(...) return complete(...) end)\n"
#define OVER "\neditline.close() print('over')"

static void lines_are_read(void **state)
{
    (void)state;
    const char *const texts[] = {"one\r", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\r", "\xff\xc3(x\r",
                                 NULL};
    type(OPEN "assert(editline.read('1> ') == 'one')\n"
              "assert(editline.read('2> ') == '\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80')\n"
              "assert(editline.read('3> ') == 'x')" OVER,
         texts);
}

static void a_line_is_dropped_or_ended(void **state)
{
    (void)state;
    const char *const texts[] = {"abc\x02\x02\x03", "x\r", "\x04", NULL};
    type(OPEN "local line, why = editline.read('1> ')\n"
              "assert(line == nil and why == 'interrupt')\n"
              "assert(editline.read('2> ') == 'x')\n"
              "line, why = editline.read('3> ')\n"
              "assert(line == nil and why == 'end')" OVER,
         texts);
}

static void the_history_gives_whole_entries(void **state)
{
    (void)state;
    const char *const texts[] = {"\x1b[A\r", "\x1b[A\x1b[A\r", NULL};
    type("function complete() end\n" OPEN "editline.remember('first \xc3\xa4')\n"
         "editline.remember('for\\n  two\\nend')\n"
         "assert(editline.read('1> ') == 'for\\n  two\\nend')\n"
         "assert(editline.read('2> ') == 'first \xc3\xa4')" OVER,
         texts);
}

static void tab_asks_and_inserts(void **state)
{
    (void)state;
    const char *const texts[] = {"f(\xc3\xa4.\xc3\xb6\t)\r", "x.\t\r", "y\t\r", "z\t\r", NULL};
    type("function complete(text)\n"
         "  if text == 'f(\xc3\xa4.\xc3\xb6' then return 6, '\xc3\xb6l' end\n"
         "  if text == 'x.' then return 3, 'a', 'ab  ac\\n' end\n"
         "  if text == 'y' then return 9, 'beyond' end\n"
         "  error 'no'\n"
         "end\n" OPEN "assert(editline.read('1> ') == 'f(\xc3\xa4.\xc3\xb6l)')\n"
         "assert(editline.read('2> ') == 'x.a')\n"
         "assert(editline.read('3> ') == 'y')\n"
         "assert(editline.read('4> ') == 'z')" OVER,
         texts);
}

static void files_are_the_owners_alone(void **state)
{
    (void)state;
    assert_int_equal(
        0, run_lua("local root = os.tmpname()\n"
                   "os.remove(root)\n"
                   "local path = root .. '/a/b/history'\n"
                   "local function all() local f = assert(io.open(path)) local t = f:read('*a')\n"
                   "  f:close() return t end\n"
                   "assert(editline.store(path, 'one\\n', false))\n"
                   "assert(editline.store(path, 'two\\n', false))\n"
                   "assert(all() == 'one\\ntwo\\n')\n"
                   "assert(editline.store(path, 'three\\n', true))\n"
                   "assert(all() == 'three\\n')\n"
                   "local p = io.popen('stat -c %a ' .. path .. ' ' .. root .. '/a')\n"
                   "assert(p:read('*a') == '600\\n700\\n')\n"
                   "p:close()\n"
                   "local ok, why = editline.store(path .. '/x', '', false)\n"
                   "assert(ok == nil and why:find('Not a directory'))\n"
                   "assert(not pcall(editline.read, '> '))\n"
                   "os.execute('rm -r ' .. root)\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read),
        cmocka_unit_test(a_line_is_dropped_or_ended),
        cmocka_unit_test(the_history_gives_whole_entries),
        cmocka_unit_test(tab_asks_and_inserts),
        cmocka_unit_test(files_are_the_owners_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
