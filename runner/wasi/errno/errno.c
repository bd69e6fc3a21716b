// Makes calls of preview1 that fail, or that one would expect to, and prints the error number of
// each: one line a case, `name number`. It needs an empty directory as `/` at descriptor 3 with
// these in it:
//
//     file        a regular file, "12345"
//     dir/inner   a regular file
//     empty/      an empty directory
//     link        a symlink to file
//     dangling    a symlink to missing
//     loop        a symlink to loop
//     absolute    a symlink to /file
//     up          a symlink to ../file
//
// Build: clang --target=wasm32 -O1 -nostdlib -Wl,--export-memory,-zstack-size=65536 errno.c
//
// wasmtime.txt is what it prints under wasmtime 50. Unknown flags, kinds and clocks are left out, as
// wasmtime traps on them.

typedef unsigned int u32;
typedef unsigned long long u64;

#define WASI(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) u32 name
WASI(fd_advise)(u32, u64, u64, u32);
WASI(fd_allocate)(u32, u64, u64);
WASI(fd_close)(u32);
WASI(fd_datasync)(u32);
WASI(fd_fdstat_get)(u32, void *);
WASI(fd_fdstat_set_flags)(u32, u32);
WASI(fd_fdstat_set_rights)(u32, u64, u64);
WASI(fd_filestat_get)(u32, void *);
WASI(fd_filestat_set_size)(u32, u64);
WASI(fd_filestat_set_times)(u32, u64, u64, u32);
WASI(fd_pread)(u32, void *, u32, u64, u32 *);
WASI(fd_prestat_dir_name)(u32, void *, u32);
WASI(fd_prestat_get)(u32, void *);
WASI(fd_pwrite)(u32, void *, u32, u64, u32 *);
WASI(fd_read)(u32, void *, u32, u32 *);
WASI(fd_readdir)(u32, void *, u32, u64, u32 *);
WASI(fd_renumber)(u32, u32);
WASI(fd_seek)(u32, long long, u32, u64 *);
WASI(fd_sync)(u32);
WASI(fd_tell)(u32, u64 *);
WASI(fd_write)(u32, void *, u32, u32 *);
WASI(path_create_directory)(u32, const char *, u32);
WASI(path_filestat_get)(u32, u32, const char *, u32, void *);
WASI(path_filestat_set_times)(u32, u32, const char *, u32, u64, u64, u32);
WASI(path_link)(u32, u32, const char *, u32, u32, const char *, u32);
WASI(path_open)(u32, u32, const char *, u32, u32, u64, u64, u32, u32 *);
WASI(path_readlink)(u32, const char *, u32, void *, u32, u32 *);
WASI(path_remove_directory)(u32, const char *, u32);
WASI(path_rename)(u32, const char *, u32, u32, const char *, u32);
WASI(path_symlink)(const char *, u32, u32, const char *, u32);
WASI(path_unlink_file)(u32, const char *, u32);
WASI(poll_oneoff)(void *, void *, u32, u32 *);
WASI(clock_time_get)(u32, u64, u64 *);
WASI(clock_res_get)(u32, u64 *);
WASI(proc_raise)(u32);
WASI(sock_accept)(u32, u32, u32 *);
WASI(sock_recv)(u32, void *, u32, u32, u32 *, u32 *);
WASI(sock_send)(u32, void *, u32, u32, u32 *);
WASI(sock_shutdown)(u32, u32);

static u32 length(const char *text) {
    u32 n = 0;
    while (text[n]) n++;
    return n;
}

static struct { const void *at; u32 length; } list[1];
static u32 result;
static u64 long_result;
static char space[4096];

static void print(const char *text, u32 size) {
    list[0].at = text;
    list[0].length = size;
    fd_write(1, list, 1, &result);
}

static void report(const char *name, u32 errno) {
    char digits[4] = {' ', '0' + errno / 10 % 10, '0' + errno % 10, '\n'};
    print(name, length(name));
    print(digits, 4);
}

#define CASE(name, call) report(name, call)
#define P(path) path, length(path)
enum { ROOT = 3, CREATE = 1, DIRECTORY = 2, EXCLUSIVE = 4, TRUNCATE = 8 };
enum { READ = 2, WRITE = 64 };

static u32 open_at(u32 base, u32 lookup, const char *path, u32 flags, u64 rights) {
    u32 errno = path_open(base, lookup, P(path), flags, rights, rights, 0, &result);
    if (errno == 0) fd_close(result);
    return errno;
}

static u32 must_open(const char *path, u32 flags, u64 rights) {
    path_open(ROOT, 1, P(path), flags, rights, rights, 0, &result);
    return result;
}

static u32 transfer(u32 fd, u32 write) {
    list[0].at = space;
    list[0].length = 1;
    return write ? fd_write(fd, list, 1, &result) : fd_read(fd, list, 1, &result);
}

static u32 poll_fd(u32 fd, u32 kind) {
    static unsigned char subscription[48], event[32];
    subscription[8] = kind;
    *(u32 *)(subscription + 16) = fd;
    return poll_oneoff(subscription, event, 1, &result);
}

static u32 poll_clock(u32 id) {
    static unsigned char subscription[48], event[32];
    *(u32 *)(subscription + 16) = id;
    return poll_oneoff(subscription, event, 1, &result);
}

void _start(void) {
    CASE("open missing", open_at(ROOT, 1, "missing", 0, READ));
    CASE("open missing/x", open_at(ROOT, 1, "missing/x", CREATE, WRITE));
    CASE("open file/x", open_at(ROOT, 1, "file/x", 0, READ));
    CASE("open file/", open_at(ROOT, 1, "file/", 0, READ));
    CASE("open file as directory", open_at(ROOT, 1, "file", DIRECTORY, READ));
    CASE("open file exclusive", open_at(ROOT, 1, "file", CREATE | EXCLUSIVE, WRITE));
    CASE("open new/ create", open_at(ROOT, 1, "new/", CREATE, WRITE));
    CASE("open dir to write", open_at(ROOT, 1, "dir", 0, WRITE));
    CASE("open dir to read and write", open_at(ROOT, 1, "dir", 0, READ | WRITE));
    CASE("open dir to read", open_at(ROOT, 1, "dir", 0, READ));
    CASE("open dir truncate", open_at(ROOT, 1, "dir", TRUNCATE, READ));
    CASE("open dir create", open_at(ROOT, 1, "dir", CREATE, READ));
    CASE("open directory create", open_at(ROOT, 1, "dir", CREATE | DIRECTORY, READ));
    CASE("open directory truncate", open_at(ROOT, 1, "dir", TRUNCATE | DIRECTORY, READ));
    CASE("open for nothing", open_at(ROOT, 1, "file", 0, 0));
    CASE("open empty path", open_at(ROOT, 1, "", 0, READ));
    CASE("open .", open_at(ROOT, 1, ".", 0, READ));
    CASE("open ..", open_at(ROOT, 1, "..", 0, READ));
    CASE("open ../file", open_at(ROOT, 1, "../file", 0, READ));
    CASE("open dir/../../file", open_at(ROOT, 1, "dir/../../file", 0, READ));
    CASE("open dir/../file", open_at(ROOT, 1, "dir/../file", 0, READ));
    CASE("open /file", open_at(ROOT, 1, "/file", 0, READ));
    CASE("open link nofollow", open_at(ROOT, 0, "link", 0, READ));
    CASE("open link", open_at(ROOT, 1, "link", 0, READ));
    CASE("open dangling", open_at(ROOT, 1, "dangling", 0, READ));
    CASE("open dangling exclusive", open_at(ROOT, 1, "dangling", CREATE | EXCLUSIVE, WRITE));
    CASE("open loop", open_at(ROOT, 1, "loop", 0, READ));
    CASE("open loop nofollow", open_at(ROOT, 0, "loop", 0, READ));
    CASE("open symlink to /file", open_at(ROOT, 1, "absolute", 0, READ));
    CASE("open symlink to ../file", open_at(ROOT, 1, "up", 0, READ));
    CASE("open not utf-8", open_at(ROOT, 1, "\xff\xfe", 0, READ));
    CASE("open with nul", path_open(ROOT, 1, "a\0b", 3, 0, READ, READ, 0, &result));
    CASE("open at stdin", open_at(0, 1, "file", 0, READ));
    CASE("open at closed", open_at(99, 1, "file", 0, READ));

    u32 reader = must_open("file", 0, READ), writer = must_open("file", 0, WRITE);
    u32 dir = must_open("dir", DIRECTORY, READ);
    CASE("open at file", open_at(reader, 1, "x", 0, READ));
    CASE("open ../file at dir", open_at(dir, 1, "../file", 0, READ));
    CASE("write to reader", transfer(reader, 1));
    CASE("read from writer", transfer(writer, 0));
    CASE("read from dir", transfer(dir, 0));
    CASE("write to dir", transfer(dir, 1));
    CASE("write to stdin", transfer(0, 1));
    CASE("read from stdout", transfer(1, 0));
    CASE("read from closed", transfer(99, 0));
    CASE("pread stdin", fd_pread(0, list, 1, 0, &result));
    CASE("pwrite stdout", fd_pwrite(1, list, 1, 0, &result));
    CASE("pread dir", fd_pread(dir, list, 1, 0, &result));
    CASE("seek stdin", fd_seek(0, 0, 1, &long_result));
    CASE("seek stdout", fd_seek(1, 0, 1, &long_result));
    CASE("seek dir", fd_seek(dir, 0, 1, &long_result));
    CASE("seek before start", fd_seek(reader, -1, 0, &long_result));
    CASE("tell stdin", fd_tell(0, &long_result));
    CASE("tell dir", fd_tell(dir, &long_result));
    CASE("set size of reader", fd_filestat_set_size(reader, 1));
    CASE("set size of dir", fd_filestat_set_size(dir, 1));
    CASE("set size of stdin", fd_filestat_set_size(0, 1));
    CASE("set times of stdin", fd_filestat_set_times(0, 0, 0, 1));
    CASE("set both times", fd_filestat_set_times(writer, 0, 0, 3));
    CASE("advise dir", fd_advise(dir, 0, 0, 0));
    CASE("advise stdin", fd_advise(0, 0, 0, 0));
    CASE("sync stdout", fd_sync(1));
    CASE("datasync stdin", fd_datasync(0));
    CASE("readdir file", fd_readdir(reader, space, sizeof space, 0, &result));
    CASE("readdir stdin", fd_readdir(0, space, sizeof space, 0, &result));
    CASE("prestat file", fd_prestat_get(reader, space));
    CASE("prestat stdin", fd_prestat_get(0, space));
    CASE("prestat closed", fd_prestat_get(99, space));
    CASE("prestat name short", fd_prestat_dir_name(ROOT, space, 0));
    CASE("prestat name file", fd_prestat_dir_name(reader, space, 10));
    CASE("renumber to closed", fd_renumber(reader, 99));
    CASE("renumber closed", fd_renumber(99, reader));
    CASE("renumber itself", fd_renumber(reader, reader));
    CASE("close closed", fd_close(99));
    CASE("fdstat closed", fd_fdstat_get(99, space));
    CASE("filestat closed", fd_filestat_get(99, space));
    CASE("set flags of dir", fd_fdstat_set_flags(dir, 0));

    CASE("stat missing", path_filestat_get(ROOT, 0, P("missing"), space));
    CASE("stat file/", path_filestat_get(ROOT, 0, P("file/"), space));
    CASE("stat dangling", path_filestat_get(ROOT, 1, P("dangling"), space));
    CASE("stat dangling nofollow", path_filestat_get(ROOT, 0, P("dangling"), space));
    CASE("stat at file", path_filestat_get(reader, 0, P("x"), space));
    CASE("stat at stdin", path_filestat_get(0, 0, P("x"), space));
    CASE("mkdir existing", path_create_directory(ROOT, P("dir")));
    CASE("mkdir file", path_create_directory(ROOT, P("file")));
    CASE("mkdir dangling", path_create_directory(ROOT, P("dangling")));
    CASE("mkdir missing/x", path_create_directory(ROOT, P("missing/x")));
    CASE("mkdir .", path_create_directory(ROOT, P(".")));
    CASE("mkdir ..", path_create_directory(ROOT, P("..")));
    CASE("mkdir empty path", path_create_directory(ROOT, P("")));
    CASE("rmdir missing", path_remove_directory(ROOT, P("missing")));
    CASE("rmdir file", path_remove_directory(ROOT, P("file")));
    CASE("rmdir file/", path_remove_directory(ROOT, P("file/")));
    CASE("rmdir full", path_remove_directory(ROOT, P("dir")));
    CASE("rmdir link", path_remove_directory(ROOT, P("link")));
    CASE("rmdir empty/.", path_remove_directory(ROOT, P("empty/.")));
    CASE("rmdir .", path_remove_directory(ROOT, P(".")));
    CASE("unlink missing", path_unlink_file(ROOT, P("missing")));
    CASE("unlink dir", path_unlink_file(ROOT, P("dir")));
    CASE("unlink dir/", path_unlink_file(ROOT, P("dir/")));
    CASE("unlink file/", path_unlink_file(ROOT, P("file/")));
    CASE("unlink ..", path_unlink_file(ROOT, P("..")));
    CASE("readlink file", path_readlink(ROOT, P("file"), space, 100, &result));
    CASE("readlink dir", path_readlink(ROOT, P("dir"), space, 100, &result));
    CASE("readlink missing", path_readlink(ROOT, P("missing"), space, 100, &result));
    CASE("readlink short", path_readlink(ROOT, P("link"), space, 2, &result));
    CASE("symlink existing", path_symlink(P("x"), ROOT, P("file")));
    CASE("symlink file/", path_symlink(P("x"), ROOT, P("file/")));
    CASE("symlink dir/", path_symlink(P("x"), ROOT, P("dir/")));
    CASE("symlink link/", path_symlink(P("x"), ROOT, P("link/")));
    CASE("symlink dangling/", path_symlink(P("x"), ROOT, P("dangling/")));
    CASE("symlink loop/", path_symlink(P("x"), ROOT, P("loop/")));
    CASE("symlink dir/.", path_symlink(P("x"), ROOT, P("dir/.")));
    CASE("symlink file/.", path_symlink(P("x"), ROOT, P("file/.")));
    CASE("symlink file/x", path_symlink(P("x"), ROOT, P("file/x")));
    CASE("symlink .", path_symlink(P("x"), ROOT, P(".")));
    CASE("symlink dir/..", path_symlink(P("x"), ROOT, P("dir/..")));
    CASE("symlink new/.", path_symlink(P("x"), ROOT, P("new/.")));
    CASE("symlink nothing", path_symlink(P("x"), ROOT, P("")));
    CASE("symlink absolute", path_symlink(P("/x"), ROOT, P("new")));
    CASE("symlink empty", path_symlink(P(""), ROOT, P("new")));
    CASE("symlink new/", path_symlink(P("x"), ROOT, P("new/")));
    CASE("symlink missing/x", path_symlink(P("x"), ROOT, P("missing/x")));
    CASE("link missing", path_link(ROOT, 0, P("missing"), ROOT, P("new")));
    CASE("link dir", path_link(ROOT, 0, P("dir"), ROOT, P("new")));
    CASE("link to existing", path_link(ROOT, 0, P("file"), ROOT, P("dir/inner")));
    CASE("link to new/", path_link(ROOT, 0, P("file"), ROOT, P("new/")));
    CASE("link file/", path_link(ROOT, 0, P("file/"), ROOT, P("new")));
    CASE("link follow", path_link(ROOT, 1, P("link"), ROOT, P("new1")));
    CASE("rename missing", path_rename(ROOT, P("missing"), ROOT, P("new")));
    CASE("rename to missing/x", path_rename(ROOT, P("file"), ROOT, P("missing/x")));
    CASE("rename file to dir", path_rename(ROOT, P("file"), ROOT, P("dir")));
    CASE("rename file to empty", path_rename(ROOT, P("file"), ROOT, P("empty")));
    CASE("rename dir to file", path_rename(ROOT, P("dir"), ROOT, P("file")));
    CASE("rename empty to dir", path_rename(ROOT, P("empty"), ROOT, P("dir")));
    CASE("rename dir into itself", path_rename(ROOT, P("dir"), ROOT, P("dir/x")));
    CASE("rename file to new/", path_rename(ROOT, P("file"), ROOT, P("new/")));
    CASE("rename file/ to new", path_rename(ROOT, P("file/"), ROOT, P("new")));
    CASE("rename .", path_rename(ROOT, P("."), ROOT, P("new")));
    CASE("rename to ..", path_rename(ROOT, P("file"), ROOT, P("..")));
    CASE("rename to itself", path_rename(ROOT, P("file"), ROOT, P("file")));
    CASE("set times of missing", path_filestat_set_times(ROOT, 0, P("missing"), 0, 0, 1));
    CASE("set both path times", path_filestat_set_times(ROOT, 0, P("file"), 0, 0, 3));

    CASE("poll nothing", poll_oneoff(space, space, 0, &result));
    CASE("poll closed", poll_fd(99, 1));
    CASE("poll dir", poll_fd(dir, 1));
    CASE("poll write stdin", poll_fd(0, 2));
    CASE("poll read stdout", poll_fd(1, 1));
    CASE("poll file", poll_fd(reader, 1));
    CASE("poll cpu clock", poll_clock(2));
    CASE("raise", proc_raise(6));
    CASE("accept on file", sock_accept(reader, 0, &result));
    CASE("accept on closed", sock_accept(99, 0, &result));
    CASE("receive from stdin", sock_recv(0, list, 1, 0, &result, &result));
    CASE("send to stdout", sock_send(1, list, 1, 0, &result));
    CASE("shutdown file", sock_shutdown(reader, 1));
}
