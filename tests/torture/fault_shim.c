/* Preloaded into the program under test: counts the calls of libc that touch files, and at the n-th lets one fail.
 *
 *   UCKPT_FAULT="CALLS:N:ACTION[:ARGUMENT]"   several, separated by `;`: the first that fits acts
 *     CALLS   reads, write-side, all, or one name: open write pwrite pwritev fallocate ftruncate fsync fdatasync
 *             sync_file_range rename link unlink mkdir rmdir read pread preadv copy_file_range
 *             (a 64-bit or *at variant counts under the plain name; an open that may create or truncate is write-side,
 *             every other open a read)
 *     N       the n-th such call from 1 on, N+ for that and every later one, 0 for every one
 *     ACTION  count             let it through
 *             kill              end the process by SIGKILL before the call
 *             fail:ERRNO        -1 with errno ERRNO, by name
 *             eintr             -1 with EINTR where that call may end so, once
 *             short             half of the bytes that are asked for
 *             nospace-after:B   ENOSPC for what would make the files that were written larger than B bytes together
 *             cut:B             the file that is read has only B bytes from now on
 *             spoil             the file that is read has other bytes, and another time of change, from now on
 *   UCKPT_FAULT_UNDER=PATH      only files below PATH count
 *   UCKPT_FAULT_LOG=FILE        gets a line a spec when the process ends, `calls COUNT bytes BYTES`, and, if the first
 *                               spec counts, one a call before: `call NAME PATH`
 *
 * Only regular files and folders count: no terminals, pipes or devices. Children are left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { READS = 1, WRITES = 2, MAX_SPECS = 8, MAX_FILES = 4096 };

static struct spec {
  char calls[32], action[32];
  long first, bytes, seen;
  bool later;
  int error;
} specs[MAX_SPECS];
static int spec_count, log_fd = -1;
static char under[PATH_MAX];
static bool active;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* What the written files take: the furthest byte that was written or reserved in each. */
static struct file {
  dev_t device;
  ino_t inode;
  off_t end;
} files[MAX_FILES];
static int file_count;
static long used;

static const struct {
  const char* name;
  int number;
} kErrors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EINTR", EINTR},   {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
               {"EACCES", EACCES}, {"EMFILE", EMFILE}, {"ENFILE", ENFILE}, {"EINVAL", EINVAL}, {"ENOSYS", ENOSYS},
               {"EPERM", EPERM},   {"ESTALE", ESTALE}, {"EFBIG", EFBIG},   {"EOPNOTSUPP", EOPNOTSUPP}};

static void log_text(const char* text) {
  if (log_fd >= 0 && syscall(SYS_write, log_fd, text, strlen(text)) < 0) _exit(99);
}

static void die(const char* why) {
  fprintf(stderr, "fault_shim: %s\n", why);
  _exit(99);
}

static void parse(char* text) {
  for (char *rest, *part = strtok_r(text, ";", &rest); part; part = strtok_r(NULL, ";", &rest)) {
    if (spec_count == MAX_SPECS) die("too many specs");
    struct spec* s = &specs[spec_count++];
    char n[32], argument[32] = "";
    if (sscanf(part, "%31[^:]:%31[^:]:%31[^:]:%31s", s->calls, n, s->action, argument) < 3) die("a bad UCKPT_FAULT");
    s->first = atol(n);
    s->later = strchr(n, '+') != NULL || s->first == 0;
    s->bytes = atol(argument);
    for (size_t i = 0; i < sizeof kErrors / sizeof *kErrors; ++i)
      if (!strcmp(argument, kErrors[i].name)) s->error = kErrors[i].number;
    if (!strcmp(s->action, "fail") && s->error == 0) die("an unknown errno");
  }
}

static void in_child(void) { active = false; }

__attribute__((constructor)) static void begin(void) {
  const char* text = getenv("UCKPT_FAULT");
  if (!text) return;
  char* copy = strdup(text);
  parse(copy);
  free(copy);
  if (getenv("UCKPT_FAULT_UNDER") && !realpath(getenv("UCKPT_FAULT_UNDER"), under)) die("no such UCKPT_FAULT_UNDER");
  const char* path = getenv("UCKPT_FAULT_LOG");
  if (path) log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  pthread_atfork(NULL, NULL, in_child);
  active = true;
}

__attribute__((destructor)) static void end(void) {
  if (!active) return;
  for (int i = 0; i < spec_count; ++i) {
    char line[96];
    snprintf(line, sizeof line, "calls %ld bytes %ld\n", specs[i].seen, used);
    log_text(line);
  }
}

static bool is_under(const char* path) {
  const size_t n = strlen(under);
  return n == 0 || (!strncmp(path, under, n) && (path[n] == '/' || path[n] == '\0'));
}

/* The path of an open file; false for what is no regular file. */
static bool path_of(int fd, char* out) {
  struct stat st;
  char link[64];
  if (fstat(fd, &st) != 0 || (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))) return false;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t n = readlink(link, out, PATH_MAX - 1);
  out[n < 0 ? 0 : n] = '\0';
  return true;
}

/* The absolute form of a path that may not exist yet. */
static bool absolute(int folder, const char* path, char* out) {
  struct stat st;
  if (fstatat(folder, path, &st, 0) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)) return false;
  char copy[PATH_MAX], real[PATH_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  char* slash = strrchr(copy, '/');
  const char* leaf = slash ? slash + 1 : copy;
  if (slash) *slash = '\0';
  const char* parent = !slash ? "." : slash == copy ? "/" : copy;
  if (folder != AT_FDCWD && path[0] != '/') {
    if (!path_of(folder, real)) return false;
  } else if (!realpath(parent, real)) {
    snprintf(real, sizeof real, "%s", parent);
  }
  return snprintf(out, PATH_MAX, "%s/%s", real, leaf) < PATH_MAX;
}

static bool fits(const struct spec* s, const char* name, int side) {
  return !strcmp(s->calls, "all") || (!strcmp(s->calls, "reads") && side == READS) ||
         (!strcmp(s->calls, "write-side") && side == WRITES) || !strcmp(s->calls, name);
}

static bool may_be_interrupted(const char* name) {
  static const char* const kCalls[] = {"open",      "read",  "pread",     "preadv",         "write", "pwrite", "pwritev",
                                       "fallocate", "fsync", "ftruncate", "copy_file_range", "fdatasync"};
  for (size_t i = 0; i < sizeof kCalls / sizeof *kCalls; ++i)
    if (!strcmp(name, kCalls[i])) return true;
  return false;
}

/* How many of the `size` bytes at `offset` there is room for; counts them as used. */
static size_t room_for(int fd, off_t offset, size_t size, long budget) {
  struct stat st;
  if (fstat(fd, &st) != 0) return size;
  int i = 0;
  while (i < file_count && (files[i].device != st.st_dev || files[i].inode != st.st_ino)) ++i;
  if (i == MAX_FILES) die("too many files");
  if (i == file_count) files[file_count++] = (struct file){st.st_dev, st.st_ino, 0};
  if (offset < 0) offset = (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
  const off_t wanted = offset + (off_t)size;
  if (wanted <= files[i].end) return size;
  long more = wanted - files[i].end;
  if (budget >= 0 && used + more > budget) more = budget > used ? budget - used : 0;
  used += more;
  files[i].end += more;
  return files[i].end <= offset ? 0 : (size_t)(files[i].end - offset);
}

static void change_file(const struct spec* s, const char* path) {
  const int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
  if (fd < 0) return;
  if (!strcmp(s->action, "cut")) {
    if (syscall(SYS_ftruncate, fd, s->bytes) != 0) _exit(99);
  } else {
    struct stat st;
    fstat(fd, &st);
    unsigned char* bytes = malloc((size_t)st.st_size + 1);
    const ssize_t n = syscall(SYS_pread64, fd, bytes, st.st_size, 0);
    for (ssize_t i = 0; i < n; ++i) bytes[i] ^= 0x55;
    if (syscall(SYS_pwrite64, fd, bytes, n, 0) != n) _exit(99);
    free(bytes);
  }
  syscall(SYS_close, fd);
}

/* Whether the call goes on; errno is set where not. `*size` may shrink. `reserving` calls take all or nothing. */
static bool allowed(const char* name, int side, const char* path, int fd, off_t offset, size_t* size, bool reserving) {
  if (!is_under(path)) return true;
  bool go_on = true;
  pthread_mutex_lock(&mutex);
  if (log_fd >= 0 && spec_count && !strcmp(specs[0].action, "count") && fits(&specs[0], name, side)) {
    char line[PATH_MAX + 64];
    snprintf(line, sizeof line, "call %s %s\n", name, path);
    log_text(line);
  }
  long budget = -1;
  for (int i = 0; i < spec_count; ++i) {
    struct spec* s = &specs[i];
    if (!fits(s, name, side)) continue;
    if (!strcmp(s->action, "nospace-after")) budget = s->bytes;
    const long n = ++s->seen;
    if (s->later ? n < s->first : n != s->first) continue;
    if (!strcmp(s->action, "kill")) syscall(SYS_kill, getpid(), SIGKILL);
    if (!strcmp(s->action, "fail")) errno = s->error, go_on = false;
    if (!strcmp(s->action, "eintr") && may_be_interrupted(name)) errno = EINTR, go_on = false;
    if (!strcmp(s->action, "short") && size && !reserving && *size > 1) *size = (*size + 1) / 2;
    if (!strcmp(s->action, "cut") || !strcmp(s->action, "spoil")) change_file(s, path);
    if (!go_on) break;
  }
  if (go_on && side == WRITES && size && *size > 0) {
    const size_t room = room_for(fd, offset, *size, budget);
    if (room == 0 || (reserving && room < *size)) errno = ENOSPC, go_on = false;
    else if (!reserving) *size = room;
  }
  pthread_mutex_unlock(&mutex);
  return go_on;
}

static bool fd_allowed(const char* name, int side, int fd, off_t offset, size_t* size, bool reserving) {
  char path[PATH_MAX];
  if (!active || fd <= 2 || fd == log_fd) return true;
  const int kept = errno;
  const bool counts = path_of(fd, path);
  errno = kept;
  return !counts || allowed(name, side, path, fd, offset, size, reserving);
}

static bool path_allowed(const char* name, int side, int folder, const char* path) {
  char full[PATH_MAX];
  if (!active) return true;
  const int kept = errno;
  const bool counts = absolute(folder, path, full);
  errno = kept;
  return !counts || allowed(name, side, full, -1, 0, NULL, false);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int open_any(int folder, const char* path, int flags, mode_t mode) {
  const bool scratch = (flags & O_TMPFILE) == O_TMPFILE;
  const int side = !scratch && flags & (O_CREAT | O_TRUNC) ? WRITES : READS;
  if (!scratch && !path_allowed("open", side, folder, path)) return -1;
  return (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN_MODE(mode, flags)                                  \
  mode_t mode = 0;                                              \
  if ((flags) & O_CREAT || ((flags) & O_TMPFILE) == O_TMPFILE) { \
    va_list rest;                                               \
    va_start(rest, flags);                                      \
    mode = va_arg(rest, mode_t);                                \
    va_end(rest);                                               \
  }

int open(const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  return open_any(AT_FDCWD, path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  return open_any(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  return open_any(folder, path, flags, mode);
}
int openat64(int folder, const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  return open_any(folder, path, flags, mode);
}
int __open_2(const char* path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char* path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }

#define TRANSFER(function, name, side, bytes_type, last, last_name, offset)             \
  ssize_t function(int fd, bytes_type bytes, size_t size last) {                        \
    size_t allowed_size = size;                                                         \
    if (!fd_allowed(name, side, fd, offset, &allowed_size, false)) return -1;           \
    return NEXT(function)(fd, bytes, allowed_size last_name);                           \
  }
#define AT , off_t at
#define AT_NAME , at
#define NOTHING
TRANSFER(read, "read", READS, void*, NOTHING, NOTHING, -1)
TRANSFER(pread, "pread", READS, void*, AT, AT_NAME, at)
TRANSFER(pread64, "pread", READS, void*, AT, AT_NAME, at)
TRANSFER(write, "write", WRITES, const void*, NOTHING, NOTHING, -1)
TRANSFER(pwrite, "pwrite", WRITES, const void*, AT, AT_NAME, at)
TRANSFER(pwrite64, "pwrite", WRITES, const void*, AT, AT_NAME, at)

/* A short vector is its first part. */
#define VECTORED(function, name, side, last, last_name, offset)                                    \
  ssize_t function(int fd, const struct iovec* parts, int count last) {                            \
    size_t whole = 0;                                                                              \
    for (int i = 0; i < count; ++i) whole += parts[i].iov_len;                                     \
    size_t size = whole;                                                                           \
    if (!fd_allowed(name, side, fd, offset, &size, false)) return -1;                              \
    if (size == whole || count == 0) return NEXT(function)(fd, parts, count last_name);            \
    const struct iovec first = {parts[0].iov_base, size < parts[0].iov_len ? size : parts[0].iov_len}; \
    return NEXT(function)(fd, &first, 1 last_name);                                                \
  }
VECTORED(readv, "preadv", READS, NOTHING, NOTHING, -1)
VECTORED(preadv, "preadv", READS, AT, AT_NAME, at)
VECTORED(preadv64, "preadv", READS, AT, AT_NAME, at)
VECTORED(writev, "pwritev", WRITES, NOTHING, NOTHING, -1)
VECTORED(pwritev, "pwritev", WRITES, AT, AT_NAME, at)
VECTORED(pwritev64, "pwritev", WRITES, AT, AT_NAME, at)

ssize_t copy_file_range(int in, off64_t* in_at, int out, off64_t* out_at, size_t size, unsigned flags) {
  if (!fd_allowed("copy_file_range", WRITES, out, out_at ? *out_at : -1, &size, false)) return -1;
  return NEXT(copy_file_range)(in, in_at, out, out_at, size, flags);
}

#define RESERVE(function)                                                            \
  int function(int fd, int mode, off_t offset, off_t length) {                       \
    size_t size = mode & FALLOC_FL_PUNCH_HOLE ? 0 : (size_t)length;                  \
    if (!fd_allowed("fallocate", WRITES, fd, offset, &size, true)) return -1;        \
    return NEXT(function)(fd, mode, offset, length);                                 \
  }
RESERVE(fallocate)
RESERVE(fallocate64)
#define RESERVE_POSIX(function)                                                      \
  int function(int fd, off_t offset, off_t length) {                                 \
    size_t size = (size_t)length;                                                    \
    if (!fd_allowed("fallocate", WRITES, fd, offset, &size, true)) return errno;     \
    return NEXT(function)(fd, offset, length);                                       \
  }
RESERVE_POSIX(posix_fallocate)
RESERVE_POSIX(posix_fallocate64)

#define ON_FILE(function, name, parameters, arguments)                        \
  int function parameters {                                                   \
    if (!fd_allowed(name, WRITES, fd, 0, NULL, false)) return -1;             \
    return NEXT(function) arguments;                                          \
  }
ON_FILE(ftruncate, "ftruncate", (int fd, off_t size), (fd, size))
ON_FILE(ftruncate64, "ftruncate", (int fd, off_t size), (fd, size))
ON_FILE(fsync, "fsync", (int fd), (fd))
ON_FILE(fdatasync, "fdatasync", (int fd), (fd))
ON_FILE(sync_file_range, "sync_file_range", (int fd, off_t at, off_t size, unsigned flags), (fd, at, size, flags))

#define ON_PATH(function, name, folder, path, parameters, arguments)          \
  int function parameters {                                                   \
    if (!path_allowed(name, WRITES, folder, path)) return -1;                 \
    return NEXT(function) arguments;                                          \
  }
ON_PATH(rename, "rename", AT_FDCWD, to, (const char* from, const char* to), (from, to))
ON_PATH(renameat, "rename", b, to, (int a, const char* from, int b, const char* to), (a, from, b, to))
ON_PATH(renameat2, "rename", b, to, (int a, const char* from, int b, const char* to, unsigned flags),
        (a, from, b, to, flags))
ON_PATH(link, "link", AT_FDCWD, to, (const char* from, const char* to), (from, to))
ON_PATH(linkat, "link", b, to, (int a, const char* from, int b, const char* to, int flags), (a, from, b, to, flags))
ON_PATH(unlink, "unlink", AT_FDCWD, path, (const char* path), (path))
ON_PATH(unlinkat, "unlink", folder, path, (int folder, const char* path, int flags), (folder, path, flags))
ON_PATH(mkdir, "mkdir", AT_FDCWD, path, (const char* path, mode_t mode), (path, mode))
ON_PATH(mkdirat, "mkdir", folder, path, (int folder, const char* path, mode_t mode), (folder, path, mode))
ON_PATH(rmdir, "rmdir", AT_FDCWD, path, (const char* path), (path))
