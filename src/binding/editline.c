/* See editline.h. libedit reads its characters through `read_char`, which waits for input and
 * signals together, so that neither a signal nor a resize is missed, and decodes UTF-8 itself.
 *
 * The terminal sends no signal for Ctrl-C while a line is edited: the character is bound to a
 * function. Signals from elsewhere end the editing first, so that no terminal stays raw. */
#include "src/binding/editline.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <langinfo.h>
#include <lauxlib.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define PATH_BYTES_MAX 4096
#define PROMPT_BYTES   256

static struct editor {
    EditLine *el;
    History *history;
    lua_State *L;
    int complete; /* reference of the completion function */
    bool is_interrupted;
    char prompt[PROMPT_BYTES];
    /* Holds libuv's handler of SIGINT in place between requests; its loop never runs for long. */
    uv_loop_t loop;
    uv_signal_t sigint;
} editor = {.complete = LUA_NOREF};

/* The last signal that came while a line was edited; 0: none. */
static volatile sig_atomic_t pending;

static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGWINCH};
#define WATCHED (sizeof(watched) / sizeof(*watched))

static void on_signal(int number)
{
    /* A resize must not hide that we are to end. */
    if (number != SIGWINCH || pending == 0)
        pending = number;
}

/* --- characters --- */

/* Waits until there is input. Signals arrive only here. False if one of them ends the line. */
static bool wait_for_input(EditLine *el)
{
    sigset_t open_mask;
    sigprocmask(SIG_SETMASK, NULL, &open_mask);
    for (size_t i = 0; i < WATCHED; i++)
        sigdelset(&open_mask, watched[i]);
    for (;;) {
        if (pending == SIGWINCH) {
            pending = 0;
            el_resize(el);
        }
        if (pending != 0)
            return false;
        struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
        int count = ppoll(&fd, 1, NULL, &open_mask);
        if (count > 0)
            return true;
        if (count < 0 && errno != EINTR)
            return false;
    }
}

/* How many bytes follow the first one of a character; -1 if it is none. */
static int bytes_after(unsigned char first)
{
    if (first < 0x80)
        return 0;
    if (first < 0xc2 || first > 0xf4)
        return -1;
    return first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
}

static int read_byte(EditLine *el, unsigned char *byte)
{
    if (!wait_for_input(el))
        return -1;
    ssize_t size;
    do
        size = read(STDIN_FILENO, byte, 1);
    while (size < 0 && errno == EINTR);
    return (int)size;
}

/* 1 and a character; 0 at the end, -1 if a signal came. What is no UTF-8 is passed over. */
static int read_char(EditLine *el, wchar_t *out)
{
    for (;;) {
        unsigned char byte;
        int status = read_byte(el, &byte);
        if (status != 1)
            return status;
        int left = bytes_after(byte);
        if (left < 0)
            continue;
        wchar_t code = left == 0 ? byte : byte & (0x3f >> left);
        for (; left > 0; left--) {
            status = read_byte(el, &byte);
            if (status != 1)
                return status;
            if ((byte & 0xc0) != 0x80)
                break;
            code = (wchar_t)(code << 6 | (byte & 0x3f));
        }
        if (left == 0) {
            *out = code;
            return 1;
        }
    }
}

/* --- keys --- */

static int characters(const char *text, size_t size)
{
    int count = 0;
    for (size_t i = 0; i < size; i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

static char *prompt_of(EditLine *el)
{
    (void)el;
    return editor.prompt;
}

static void print(EditLine *el, const char *text)
{
    FILE *out = stdout;
    el_get(el, EL_GETFP, 1, &out);
    fputs(text, out);
    fflush(out);
}

/* False, if the cursor was not at the line's end: it is moved there first, and then the key comes
 * again. */
static bool leave_line(EditLine *el, const char *key, const char *mark)
{
    const LineInfo *line = el_line(el);
    if (line->cursor != line->lastchar) {
        el_cursor(el, characters(line->cursor, (size_t)(line->lastchar - line->cursor)));
        el_push(el, key);
        return false;
    }
    print(el, mark);
    return true;
}

static unsigned char on_interrupt_key(EditLine *el, int key)
{
    (void)key;
    if (!leave_line(el, "\003", "^C\r\n"))
        return CC_CURSOR;
    editor.is_interrupted = true;
    return CC_EOF;
}

static unsigned char on_suspend_key(EditLine *el, int key)
{
    (void)key;
    if (!leave_line(el, "\032", "^Z\r\n"))
        return CC_CURSOR;
    el_set(el, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    el_set(el, EL_PREP_TERM, 1);
    el_set(el, EL_REFRESH);
    return CC_NORM;
}

struct completion {
    const char *text;
    size_t size;
    lua_Integer from; /* 0: nothing */
    const char *insert;
    const char *list;
};

/* The strings stay on the stack below, where `on_complete_key` has made room for them. */
static int ask_completion(lua_State *L)
{
    struct completion *c = (struct completion *)lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, editor.complete);
    lua_pushlstring(L, c->text, c->size);
    lua_call(L, 1, 3);
    if (lua_type(L, -3) == LUA_TNUMBER && lua_type(L, -2) == LUA_TSTRING) {
        c->from = lua_tointeger(L, -3);
        c->insert = lua_tostring(L, -2);
        c->list = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : NULL;
    }
    return 2;
}

static unsigned char on_complete_key(EditLine *el, int key)
{
    (void)key;
    lua_State *L = editor.L;
    const LineInfo *line = el_line(el);
    struct completion c = {.text = line->buffer, .size = (size_t)(line->cursor - line->buffer)};
    int top = lua_gettop(L);
    lua_pushcfunction(L, ask_completion);
    lua_pushlightuserdata(L, &c);
    unsigned char end = CC_REFRESH_BEEP;
    if (lua_pcall(L, 1, 2, 0) == 0 && c.from >= 1 && (size_t)c.from <= c.size + 1) {
        size_t kept = (size_t)c.from - 1;
        size_t old_size = c.size - kept;
        if (old_size != strlen(c.insert) || memcmp(line->buffer + kept, c.insert, old_size) != 0) {
            el_deletestr(el, characters(line->buffer + kept, old_size));
            el_insertstr(el, c.insert);
            end = CC_REFRESH;
        }
        if (c.list) {
            print(el, "\r\n");
            print(el, c.list);
            el_set(el, EL_REFRESH); /* the line once more, below */
            end = CC_NORM;
        }
    }
    lua_settop(L, top);
    return end;
}

/* --- the module --- */

/* libedit turns characters into bytes by the locale; without a UTF-8 one it would lose them. */
static void set_locale(void)
{
    setlocale(LC_CTYPE, "");
    if (strcmp(nl_langinfo(CODESET), "UTF-8") != 0 && !setlocale(LC_CTYPE, "C.UTF-8"))
        setlocale(LC_CTYPE, "en_US.UTF-8");
}

static void bind_key(const char *keys, const char *command)
{
    el_set(editor.el, EL_BIND, keys, command, NULL);
}

static void bind_keys(void)
{
    EditLine *el = editor.el;
    /* The narrow call would copy the names and lose the copies. */
    el_wset(el, EL_ADDFN, L"mpreg-interrupt", L"drop the line", on_interrupt_key);
    el_wset(el, EL_ADDFN, L"mpreg-suspend", L"suspend the program", on_suspend_key);
    el_wset(el, EL_ADDFN, L"mpreg-complete", L"complete the word", on_complete_key);
    el_set(el, EL_SETTY, "-d", "-isig", NULL);
    bind_key("^C", "mpreg-interrupt");
    bind_key("^Z", "mpreg-suspend");
    bind_key("^I", "mpreg-complete");
    bind_key("^R", "em-inc-search-prev");
    /* Delete, and words with Ctrl and an arrow, as terminals send them. */
    bind_key("\\e[3~", "ed-delete-next-char");
    bind_key("\\e[1;5C", "em-next-word");
    bind_key("\\e[1;5D", "ed-prev-word");
}

static void ignore_interrupt(uv_signal_t *signal, int number)
{
    (void)signal;
    (void)number;
}

static int editline_open(lua_State *L)
{
    const char *program = luaL_checkstring(L, 1);
    int entries_max = (int)luaL_checkinteger(L, 2);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    if (editor.el)
        return luaL_error(L, "the editor is open");
    set_locale();
    FILE *out = isatty(STDOUT_FILENO) ? stdout : stderr;
    editor.history = history_init();
    editor.el = el_init(program, stdin, out, stderr);
    if (!editor.el || !editor.history || uv_loop_init(&editor.loop) != 0)
        return luaL_error(L, "the terminal cannot be used for editing");
    uv_signal_init(&editor.loop, &editor.sigint);
    uv_signal_start(&editor.sigint, ignore_interrupt, SIGINT);
    HistEvent event;
    history(editor.history, &event, H_SETSIZE, entries_max);
    history(editor.history, &event, H_SETUNIQUE, 1);
    el_set(editor.el, EL_SIGNAL, 0);
    el_set(editor.el, EL_EDITOR, "emacs");
    el_set(editor.el, EL_HIST, history, editor.history);
    el_set(editor.el, EL_PROMPT, prompt_of);
    el_set(editor.el, EL_GETCFN, read_char);
    el_source(editor.el, NULL);
    bind_keys();
    editor.L = L;
    lua_settop(L, 3);
    editor.complete = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int editline_read(lua_State *L)
{
    size_t size;
    const char *prompt = luaL_checklstring(L, 1, &size);
    if (!editor.el)
        return luaL_error(L, "the editor is not open");
    size = size < PROMPT_BYTES ? size : PROMPT_BYTES - 1;
    memcpy(editor.prompt, prompt, size);
    editor.prompt[size] = '\0';
    luaL_checkstack(L, 8, "too many values");
    uv_run(&editor.loop, UV_RUN_NOWAIT); /* interrupts that came late */

    struct sigaction before[WATCHED];
    const struct sigaction noting = {.sa_handler = on_signal}; /* no SA_RESTART */
    sigset_t mask;
    sigset_t mask_before;
    sigemptyset(&mask);
    for (size_t i = 0; i < WATCHED; i++)
        sigaddset(&mask, watched[i]);
    pending = 0;
    sigprocmask(SIG_BLOCK, &mask, &mask_before);
    for (size_t i = 0; i < WATCHED; i++)
        sigaction(watched[i], &noting, &before[i]);
    editor.is_interrupted = false;
    el_resize(editor.el);
    /* Before the prompt is shown: who types as soon as it is there must not be echoed twice. */
    el_set(editor.el, EL_PREP_TERM, 1);
    int length = 0;
    const char *line = el_gets(editor.el, &length);
    for (size_t i = 0; i < WATCHED; i++)
        sigaction(watched[i], &before[i], NULL);
    sigprocmask(SIG_SETMASK, &mask_before, NULL);

    if (pending == SIGTERM || pending == SIGHUP)
        raise((int)pending);
    if (editor.is_interrupted || pending == SIGINT) {
        lua_pushnil(L);
        lua_pushliteral(L, "interrupt");
        return 2;
    }
    if (!line || length <= 0) {
        lua_pushnil(L);
        lua_pushliteral(L, "end");
        return 2;
    }
    size = (size_t)length;
    while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
        size--;
    lua_pushlstring(L, line, size);
    return 1;
}

static int editline_remember(lua_State *L)
{
    HistEvent event;
    const char *text = luaL_checkstring(L, 1);
    if (editor.history)
        history(editor.history, &event, H_ENTER, text);
    return 0;
}

static int return_errno(lua_State *L, const char *path)
{
    const char *why = strerror(errno);
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, why);
    return 2;
}

/* The folders that the file lies in. */
static bool make_folders(const char *path)
{
    char folder[PATH_BYTES_MAX];
    size_t size = strlen(path);
    if (size >= sizeof(folder)) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(folder, path, size + 1);
    for (char *slash = strchr(folder + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (mkdir(folder, S_IRWXU) != 0 && errno != EEXIST)
            return false;
        *slash = '/';
    }
    return true;
}

/* Writes beside the file first if all of it is replaced, so that no reader sees half of it. */
static int editline_store(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    size_t size;
    const char *text = luaL_checklstring(L, 2, &size);
    bool is_whole = lua_toboolean(L, 3);
    const char *target = is_whole ? lua_pushfstring(L, "%s.new", path) : path;
    if (!make_folders(path))
        return return_errno(L, path);
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | (is_whole ? O_TRUNC : O_APPEND);
    int fd = open(target, flags, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return return_errno(L, target);
    ssize_t written = 0;
    for (size_t done = 0; done < size && written >= 0; done += (size_t)written) {
        do
            written = write(fd, text + done, size - done);
        while (written < 0 && errno == EINTR);
        if (written < 0)
            break;
    }
    int status = close(fd);
    if (written < 0 || status != 0 || (is_whole && rename(target, path) != 0))
        return return_errno(L, target);
    lua_pushboolean(L, true);
    return 1;
}

/* With the Lua state: the terminal is as it was, and the history is freed. */
static int editline_close(lua_State *L)
{
    (void)L;
    if (!editor.el)
        return 0;
    el_end(editor.el);
    history_end(editor.history);
    editor.el = NULL;
    editor.history = NULL;
    uv_close((uv_handle_t *)&editor.sigint, NULL);
    uv_run(&editor.loop, UV_RUN_DEFAULT);
    uv_loop_close(&editor.loop);
    return 0;
}

int mp_editline_open(lua_State *L)
{
    static const luaL_Reg functions[] = {{"open", editline_open},         {"read", editline_read},
                                         {"remember", editline_remember}, {"store", editline_store},
                                         {"close", editline_close},       {NULL, NULL}};
    lua_createtable(L, 0, 5);
    luaL_register(L, NULL, functions);
    return 1;
}
