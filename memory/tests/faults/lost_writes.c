// A disk that forgets what was never synced: preloaded into a process, it follows every change of the files below one
// folder and, at a chosen step, writes the folder as it could be found after a power failure and ends the process.
//
//   FAULT_ROOT=/path    the folder that is followed; what is in it at the start counts as synced
//   FAULT_IMAGE=/path   where the folder is written as it would be found; must not be there yet
//   FAULT_STEP=n        power fails at the n-th change or sync; 0 or none: when the process ends
//   FAULT_KEEP=percent  of the unsynced changes, how many survive all the same, whole or torn; none: 0
//   FAULT_SEED=n        which ones
//   FAULT_SYNC=real | swallow-files | swallow-folders
//                       what a sync does: its work; nothing for files; nothing for folders (to see that tests notice)
//   FAULT_FULL=n        from the n-th write on, writes fail with ENOSPC (and power does not fail by itself)
//
// A file's content lasts once the file was synced, a name in a folder once the folder was; nothing else is promised.
// Memory-mapped writes are not seen: SQLite maps only the index of its write-ahead log, which is rebuilt when lost.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NUM_FDS = 4096, NAME_LEN = 256, SECTOR = 512, EXIT_CODE = 99 };

// A change that was not synced: a write, or a truncation where `data` is null.
struct change {
    struct change *next;
    off_t offset;
    size_t len;
    char *data;
};

struct entry {
    struct entry *next;
    char name[NAME_LEN];
    struct node *node;
};

// A file or folder. `ino` is 0 once its last name is gone, since the number may be given again.
struct node {
    struct node *next;
    ino_t ino;
    int is_folder;
    char *data;
    size_t len, capacity;
    struct change *first, *last;
    struct entry *entries;
};

static struct {
    int (*open)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*close)(int);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*writev)(int, const struct iovec *, int);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    int (*ftruncate)(int, off_t);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*rename)(const char *, const char *);
    int (*unlink)(const char *);
    int (*unlinkat)(int, const char *, int);
    int (*mkdir)(const char *, mode_t);
} real;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], image[PATH_MAX];
static size_t root_len;
static struct node *nodes, *root_node;
static struct node *by_fd[NUM_FDS];
static long step, crash_step, num_writes, full_from;
static unsigned keep_percent;
static uint64_t seed;
static enum { SYNC_REAL, SYNC_SWALLOW_FILES, SYNC_SWALLOW_FOLDERS } sync_mode;

// SplitMix64 (Steele et al., 2014).
static uint64_t next_random(void) {
    uint64_t bits = seed += 0x9e3779b97f4a7c15u;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return bits ^ (bits >> 31);
}

static int survives(void) { return next_random() % 100 < keep_percent; }

static void die(const char *what) {
    dprintf(2, "lost_writes: %s: %s\n", what, strerror(errno));
    _exit(98);
}

static void *must(void *memory) {
    if (!memory) die("memory");
    return memory;
}

static int is_below_root(const char *path) {
    return root_len && !strncmp(path, root, root_len) && (path[root_len] == '/' || !path[root_len]);
}

static struct node *node_of(ino_t ino) {
    for (struct node *node = nodes; node; node = node->next)
        if (node->ino == ino) return node;
    struct node *node = must(calloc(1, sizeof *node));
    node->ino = ino;
    node->next = nodes;
    return nodes = node;
}

static void resize(struct node *node, size_t len) {
    if (len > node->capacity) {
        node->capacity = len * 2;
        node->data = must(realloc(node->data, node->capacity));
    }
    if (len > node->len) memset(node->data + node->len, 0, len - node->len);
    node->len = len;
}

static void apply(struct node *node, const struct change *change, size_t len) {
    if (!change->data) {
        resize(node, change->offset);
        return;
    }
    if (change->offset + len > node->len) resize(node, change->offset + len);
    memcpy(node->data + change->offset, change->data, len);
}

static void note(struct node *node, off_t offset, const void *data, size_t len) {
    struct change *change = must(calloc(1, sizeof *change));
    change->offset = offset;
    change->len = len;
    if (data) memcpy(change->data = must(malloc(len ? len : 1)), data, len);
    if (node->last) node->last->next = change;
    else node->first = change;
    node->last = change;
}

static void drop_changes(struct node *node) {
    while (node->first) {
        struct change *change = node->first;
        node->first = change->next;
        free(change->data);
        free(change);
    }
    node->last = NULL;
}

static void drop_entries(struct node *node) {
    while (node->entries) {
        struct entry *entry = node->entries;
        node->entries = entry->next;
        free(entry);
    }
}

// Makes the folder's names as they are now the ones that last.
static void keep_entries(struct node *node, const char *path) {
    DIR *folder = opendir(path);
    if (!folder) die(path);
    drop_entries(node);
    for (struct dirent *found; (found = readdir(folder));) {
        if (!strcmp(found->d_name, ".") || !strcmp(found->d_name, "..")) continue;
        struct entry *entry = must(calloc(1, sizeof *entry));
        snprintf(entry->name, NAME_LEN, "%s", found->d_name);
        entry->node = node_of(found->d_ino);
        entry->node->is_folder = found->d_type == DT_DIR;
        entry->next = node->entries;
        node->entries = entry;
    }
    closedir(folder);
}

// What is there at the start counts as synced.
static void load(struct node *node, const char *path) {
    if (!node->is_folder) {
        struct stat found;
        int fd = real.open(path, O_RDONLY);
        if (fd < 0 || fstat(fd, &found)) die(path);
        resize(node, found.st_size);
        for (size_t done = 0; done < node->len;) {
            ssize_t len = pread(fd, node->data + done, node->len - done, done);
            if (len <= 0) die(path);
            done += len;
        }
        real.close(fd);
        return;
    }
    keep_entries(node, path);
    for (struct entry *entry = node->entries; entry; entry = entry->next) {
        char below[PATH_MAX];
        snprintf(below, sizeof below, "%s/%s", path, entry->name);
        load(entry->node, below);
    }
}

// Some unsynced changes may have reached the disk, in any order; a longer one maybe in part.
static void keep_some(struct node *node) {
    for (struct change *change = node->first; change; change = change->next) {
        if (!survives()) continue;
        size_t len = change->len;
        if (len > SECTOR && next_random() % 4 == 0) len = next_random() % (len / SECTOR) * SECTOR;
        apply(node, change, len);
    }
    drop_changes(node);
}

static void save(struct node *node, const char *current, const char *path) {
    if (!node->is_folder) {
        keep_some(node);
        int fd = real.open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd < 0) die(path);
        for (size_t done = 0; done < node->len;) {
            ssize_t len = real.write(fd, node->data + done, node->len - done);
            if (len <= 0) die(path);
            done += len;
        }
        real.close(fd);
        return;
    }
    if (real.mkdir(path, 0700)) die(path);
    if (current && survives()) keep_entries(node, current);
    for (struct entry *entry = node->entries; entry; entry = entry->next) {
        char now[PATH_MAX], below[PATH_MAX];
        snprintf(now, sizeof now, "%s/%s", current ? current : "", entry->name);
        snprintf(below, sizeof below, "%s/%s", path, entry->name);
        struct stat found;
        int is_there = current && !lstat(now, &found) && found.st_ino == entry->node->ino;
        save(entry->node, is_there ? now : NULL, below);
    }
}

static void fail_power(void) {
    if (!full_from && *image) save(root_node, root, image);
}

// One more change or sync is about to happen. The lock is held, and stays so.
static void count_step(void) {
    if (++step == crash_step) {
        fail_power();
        _exit(EXIT_CODE);
    }
}

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? atol(text) : otherwise;
}

__attribute__((constructor)) static void start(void) {
#define REAL(name) *(void **)&real.name = dlsym(RTLD_NEXT, #name)
    REAL(open), REAL(openat), REAL(close), REAL(write), REAL(writev), REAL(pwrite), REAL(ftruncate), REAL(fsync);
    REAL(fdatasync), REAL(rename), REAL(unlink), REAL(unlinkat), REAL(mkdir);
    const char *folder = getenv("FAULT_ROOT"), *target = getenv("FAULT_IMAGE"), *sync = getenv("FAULT_SYNC");
    if (!folder || !realpath(folder, root)) return;
    if (target) snprintf(image, sizeof image, "%s", target);
    crash_step = number("FAULT_STEP", 0);
    keep_percent = number("FAULT_KEEP", 0);
    seed = number("FAULT_SEED", 1);
    full_from = number("FAULT_FULL", 0);
    if (sync && !strcmp(sync, "swallow-files")) sync_mode = SYNC_SWALLOW_FILES;
    if (sync && !strcmp(sync, "swallow-folders")) sync_mode = SYNC_SWALLOW_FOLDERS;
    struct stat found;
    if (stat(root, &found)) die(root);
    root_node = node_of(found.st_ino);
    root_node->is_folder = 1;
    load(root_node, root);
    root_len = strlen(root);
}

__attribute__((destructor)) static void finish(void) {
    if (!root_len) return;
    pthread_mutex_lock(&lock);
    fail_power();
    if (getenv("FAULT_REPORT")) dprintf(2, "lost_writes: %ld steps\n", step);
}

static struct node *node_of_fd(int fd) { return fd >= 0 && fd < NUM_FDS ? by_fd[fd] : NULL; }

static int path_of_fd(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    path[len < 0 ? 0 : len] = 0;
    return len >= 0;
}

static int opened(int fd, int flags) {
    char path[PATH_MAX];
    struct stat found;
    if (fd < 0 || fd >= NUM_FDS || !path_of_fd(fd, path) || !is_below_root(path) || fstat(fd, &found)) return fd;
    by_fd[fd] = node_of(found.st_ino);
    by_fd[fd]->is_folder = S_ISDIR(found.st_mode);
    if (flags & O_TRUNC) note(by_fd[fd], 0, NULL, 0);
    return fd;
}

static int open_any(int folder, const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&lock);
    if (root_len && flags & (O_CREAT | O_TRUNC) && is_below_root(path)) count_step();
    int fd = opened(real.openat(folder, path, flags, mode), flags);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_any(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_any(folder, path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags, mode)
    return open_any(folder, path, flags | O_LARGEFILE, mode);
}

int close(int fd) {
    pthread_mutex_lock(&lock);
    if (node_of_fd(fd)) by_fd[fd] = NULL;
    int result = real.close(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static int is_full(void) {
    if (!full_from || ++num_writes < full_from) return 0;
    errno = ENOSPC;
    return 1;
}

static off_t place_of(int fd) {
    struct stat found;
    if (fcntl(fd, F_GETFL) & O_APPEND && !fstat(fd, &found)) return found.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t len) {
    struct node *node = node_of_fd(fd);
    if (!node) return real.write(fd, data, len);
    pthread_mutex_lock(&lock);
    count_step();
    off_t offset = place_of(fd);
    ssize_t result = is_full() ? -1 : real.write(fd, data, len);
    if (result > 0) note(node, offset, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t writev(int fd, const struct iovec *parts, int num_parts) {
    if (!node_of_fd(fd)) return real.writev(fd, parts, num_parts);
    // A short write is one that callers have to expect.
    for (int i = 0; i < num_parts; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    struct node *node = node_of_fd(fd);
    if (!node) return real.pwrite(fd, data, len, offset);
    pthread_mutex_lock(&lock);
    count_step();
    ssize_t result = is_full() ? -1 : real.pwrite(fd, data, len, offset);
    if (result > 0) note(node, offset, data, result);
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) { return pwrite(fd, data, len, offset); }

int ftruncate(int fd, off_t len) {
    struct node *node = node_of_fd(fd);
    if (!node) return real.ftruncate(fd, len);
    pthread_mutex_lock(&lock);
    count_step();
    int result = real.ftruncate(fd, len);
    if (!result) note(node, len, NULL, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t len) { return ftruncate(fd, len); }

// The real sync is left out: the disk is this one.
static int sync_any(int fd, int (*real_sync)(int)) {
    struct node *node = node_of_fd(fd);
    if (!node) return real_sync(fd);
    pthread_mutex_lock(&lock);
    count_step();
    char path[PATH_MAX];
    int is_done = sync_mode != (node->is_folder ? SYNC_SWALLOW_FOLDERS : SYNC_SWALLOW_FILES);
    if (is_done && node->is_folder) {
        if (path_of_fd(fd, path)) keep_entries(node, path);
    } else if (is_done) {
        for (struct change *change = node->first; change; change = change->next) apply(node, change, change->len);
        drop_changes(node);
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return sync_any(fd, real.fsync); }

int fdatasync(int fd) { return sync_any(fd, real.fdatasync); }

// The node keeps its place among the names that last; its number may be given to another file.
static void forget(int folder, const char *path) {
    struct stat found;
    if (!fstatat(folder, path, &found, AT_SYMLINK_NOFOLLOW) && found.st_nlink == 1 && !S_ISDIR(found.st_mode))
        node_of(found.st_ino)->ino = 0;
}

int rename(const char *from, const char *to) {
    if (!is_below_root(from) && !is_below_root(to)) return real.rename(from, to);
    pthread_mutex_lock(&lock);
    count_step();
    forget(AT_FDCWD, to);
    int result = real.rename(from, to);
    pthread_mutex_unlock(&lock);
    return result;
}

static int unlink_any(int folder, const char *path, int flags) {
    pthread_mutex_lock(&lock);
    if (is_below_root(path)) {
        count_step();
        if (!(flags & AT_REMOVEDIR)) forget(folder, path);
    }
    int result = real.unlinkat(folder, path, flags);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) { return unlink_any(AT_FDCWD, path, 0); }

int unlinkat(int folder, const char *path, int flags) { return unlink_any(folder, path, flags); }

int mkdir(const char *path, mode_t mode) {
    if (!is_below_root(path)) return real.mkdir(path, mode);
    pthread_mutex_lock(&lock);
    count_step();
    int result = real.mkdir(path, mode);
    pthread_mutex_unlock(&lock);
    return result;
}
