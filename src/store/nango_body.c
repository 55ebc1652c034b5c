/*
 * Copyright (C) nginx-nango authors
 *
 * Bodies too large for a record, each a file of its own: LMDB would need as
 * many free pages in a row, and nginx has received them as a file already.
 *
 * A body is durable before the record that names it is committed: its bytes,
 * then its name, are synced.  A process that dies in between leaves a file
 * that nobody names.  Those the sweep removes, and since a wrong guess would
 * lose what was acknowledged, it asks the log itself about each file that it
 * is going to remove.  The fold takes the right to write from each file that
 * it finds named; that is what spares the sweep from reading the log for all
 * the others, and nothing else depends on it.
 *
 * One whose record is on its way is held by a lock of the kernel's, which ends
 * with the process: a clock may leap while it waits for the disk.
 */


#include "nango_log.h"
#include "nango_tables.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>


#define NANGO_BODY_DIR         "/bodies/"
#define NANGO_BODY_RAW_LEN     (NANGO_BODY_NAME_LEN / 2)

#define NANGO_BODY_ORPHAN_MS   (3600 * 1000)

/* Files without the mark that one sweep looks up, and records in one go. */
#define NANGO_BODY_CANDIDATES  65536
#define NANGO_BODY_STEP        65536


typedef struct {
    unsigned char         raw[NANGO_BODY_RAW_LEN];
    int                   named;
} nango_body_candidate_t;

typedef struct {
    nango_body_candidate_t  *candidates;
    size_t                   n;
    size_t                   size;
    uint64_t                 next;      /* sequence */
    uint64_t                 unread;    /* records that may name a body */
    size_t                   step;
} nango_body_sweep_t;


static int nango_body_name(unsigned char name[NANGO_BODY_NAME_LEN],
    char file[NANGO_BODY_NAME_LEN + 1]);
static int nango_body_hold(int fd, int *held);
static int nango_body_held(int dir, const char *name);
static void nango_body_mode(nango_store_t *store, nango_str_t name,
    mode_t mode);
static int nango_body_candidates(nango_store_t *store,
    nango_body_sweep_t *sweep, uint64_t now_ms, nango_error_t *err);
static int nango_body_old(int dir, const char *name, uint64_t now_ms);
static int nango_body_sweep_temp(nango_store_t *store, uint64_t now_ms,
    nango_error_t *err);
static int nango_body_look_up(void *data, uint64_t sequence,
    const nango_record_t *record);
static int nango_body_compare(const void *one, const void *two);


size_t
nango_body_path_len(const nango_store_t *store)
{
    return store->path_len + sizeof(NANGO_BODY_DIR) + NANGO_BODY_NAME_LEN;
}


void
nango_body_path(const nango_store_t *store, nango_str_t name, char *path)
{
    size_t  len;

    len = (name.len < NANGO_BODY_NAME_LEN) ? name.len : NANGO_BODY_NAME_LEN;

    (void) snprintf(path, nango_body_path_len(store), "%s%s%.*s", store->path,
                    NANGO_BODY_DIR, (int) len, (const char *) name.data);
}


nango_rc_e
nango_body_adopt(nango_store_t *store, int fd, const char *from,
    unsigned char name[NANGO_BODY_NAME_LEN], int *held, nango_error_t *err)
{
    int   rc, lock;
    char  to[NANGO_BODY_NAME_LEN + 1];

    if (held != NULL) {
        *held = -1;
    }

    rc = nango_body_name(name, to);

    if (rc != 0) {
        return nango_store_error(store, err, rc, "getrandom()", "bodies");
    }

    if (fsync(fd) == -1) {
        return nango_store_error(store, err, errno, "fsync() of a body for",
                                 "bodies");
    }

    rc = nango_body_hold(fd, &lock);

    if (rc != 0) {
        return nango_store_error(store, err, rc, "flock() of a body for",
                                 "bodies");
    }

    if (renameat(AT_FDCWD, from, store->bodies, to) == -1) {
        rc = errno;
        (void) close(lock);
        return nango_store_error(store, err, rc, "rename()", "bodies");
    }

    rc = nango_sync_directory(store->bodies);

    if (rc != 0) {
        (void) unlinkat(store->bodies, to, 0);
    }

    if (rc == 0 && held != NULL) {
        *held = lock;

    } else {
        (void) close(lock);
    }

    return nango_store_error(store, err, rc, "fsync()", "bodies");
}


nango_rc_e
nango_body_copy(nango_store_t *store, nango_str_t body,
    unsigned char name[NANGO_BODY_NAME_LEN], int *held, nango_error_t *err)
{
    int          fd, rc, lock;
    char         to[NANGO_BODY_NAME_LEN + 1];
    size_t       len;
    ssize_t      n;
    const char  *what;

    if (held != NULL) {
        *held = -1;
    }

    rc = nango_body_name(name, to);

    if (rc != 0) {
        return nango_store_error(store, err, rc, "getrandom()", "bodies");
    }

    fd = openat(store->bodies, to, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC,
                S_IRUSR|S_IWUSR);
    if (fd == -1) {
        return nango_store_error(store, err, errno, "open()", "bodies");
    }

    rc = nango_body_hold(fd, &lock);
    what = (rc == 0) ? "write() of a body for" : "flock() of a body for";

    for (len = 0; rc == 0 && len < body.len; len += n) {

        n = write(fd, body.data + len, body.len - len);

        if (n == -1) {
            rc = errno;
            n = 0;

            if (rc == EINTR) {
                rc = 0;
            }
        }
    }

    if (rc == 0 && fsync(fd) == -1) {
        rc = errno;
        what = "fsync() of a body for";
    }

    if (close(fd) == -1 && rc == 0) {
        rc = errno;
        what = "close() of a body for";
    }

    if (rc == 0) {
        rc = nango_sync_directory(store->bodies);
        what = "fsync()";
    }

    if (rc != 0) {
        (void) unlinkat(store->bodies, to, 0);
    }

    if (rc == 0 && held != NULL) {
        *held = lock;

    } else if (lock != -1) {
        (void) close(lock);
    }

    return nango_store_error(store, err, rc, what, "bodies");
}


/* A descriptor of the same open file, which has the lock.  0 or errno. */

static int
nango_body_hold(int fd, int *held)
{
    int  rc;

    *held = fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (*held == -1) {
        return errno;
    }

    if (flock(*held, LOCK_SH|LOCK_NB) == 0) {
        return 0;
    }

    rc = errno;

    (void) close(*held);
    *held = -1;

    return rc;
}


/* One that cannot be looked at may be. */

static int
nango_body_held(int dir, const char *name)
{
    int  fd, rc;

    fd = openat(dir, name, O_RDONLY|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC);
    if (fd == -1) {
        return 1;
    }

    rc = flock(fd, LOCK_EX|LOCK_NB);

    (void) close(fd);

    return rc != 0;
}


/* A new one, and the same terminated by zero.  0 or errno. */

static int
nango_body_name(unsigned char name[NANGO_BODY_NAME_LEN],
    char file[NANGO_BODY_NAME_LEN + 1])
{
    unsigned char  raw[NANGO_BODY_RAW_LEN];

    if (getrandom(raw, sizeof(raw), 0) != sizeof(raw)) {
        return errno;
    }

    nango_hex(name, raw, sizeof(raw));

    memcpy(file, name, NANGO_BODY_NAME_LEN);
    file[NANGO_BODY_NAME_LEN] = '\0';

    return 0;
}


void
nango_body_remove(nango_store_t *store, nango_str_t name)
{
    char  file[NANGO_BODY_NAME_LEN + 1];

    if (name.len != NANGO_BODY_NAME_LEN
        || memchr(name.data, '/', name.len) != NULL)
    {
        return;
    }

    memcpy(file, name.data, NANGO_BODY_NAME_LEN);
    file[NANGO_BODY_NAME_LEN] = '\0';

    (void) unlinkat(store->bodies, file, 0);
}


void
nango_body_keep(nango_store_t *store, nango_str_t name)
{
    nango_body_mode(store, name, S_IRUSR);
}


void
nango_body_doubt(nango_store_t *store, nango_str_t name)
{
    nango_body_mode(store, name, S_IRUSR|S_IWUSR);
}


static void
nango_body_mode(nango_store_t *store, nango_str_t name, mode_t mode)
{
    char           file[NANGO_BODY_NAME_LEN + 1];
    unsigned char  raw[NANGO_BODY_RAW_LEN];

    if (nango_unhex(raw, sizeof(raw), name) != 0) {
        return;
    }

    memcpy(file, name.data, NANGO_BODY_NAME_LEN);
    file[NANGO_BODY_NAME_LEN] = '\0';

    (void) fchmodat(store->bodies, file, mode, 0);
}


int
nango_body_sweep(nango_store_t *store, uint64_t now_ms, size_t max,
    nango_error_t *err)
{
    int                  rc, removed;
    size_t               i;
    unsigned char        name[NANGO_BODY_NAME_LEN];
    nango_body_sweep_t   sweep;

    if (nango_body_sweep_temp(store, now_ms, err) != 0) {
        return -1;
    }

    memset(&sweep, 0, sizeof(nango_body_sweep_t));

    if (nango_body_candidates(store, &sweep, now_ms, err) != 0) {
        free(sweep.candidates);
        return -1;
    }

    if (sweep.n == 0) {
        free(sweep.candidates);
        return 0;
    }

    qsort(sweep.candidates, sweep.n, sizeof(nango_body_candidate_t),
          nango_body_compare);

    /*
     * In steps, since a snapshot of the log that is held for long makes its
     * file grow.
     */

    do {
        sweep.step = 0;
        rc = nango_log_walk(store, sweep.next, nango_body_look_up, &sweep,
                            &sweep.unread, err);
    } while (rc == 1);

    if (rc != 0) {
        free(sweep.candidates);
        return -1;
    }

    removed = 0;

    for (i = 0; i < sweep.n; i++) {
        nango_hex(name, sweep.candidates[i].raw, NANGO_BODY_RAW_LEN);

        if (sweep.candidates[i].named) {
            nango_body_keep(store, nango_str(name, sizeof(name)));

        } else if (sweep.unread == 0 && (size_t) removed < max) {
            nango_body_remove(store, nango_str(name, sizeof(name)));
            removed++;
        }
    }

    free(sweep.candidates);

    return removed;
}


static int
nango_body_candidates(nango_store_t *store, nango_body_sweep_t *sweep,
    uint64_t now_ms, nango_error_t *err)
{
    int             fd;
    DIR            *dir;
    size_t          size;
    void           *p;
    unsigned char   raw[NANGO_BODY_RAW_LEN];
    struct dirent  *de;

    fd = openat(store->bodies, ".", O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    if (fd == -1) {
        (void) nango_store_error(store, err, errno, "open()", "bodies");
        return -1;
    }

    dir = fdopendir(fd);
    if (dir == NULL) {
        (void) nango_store_error(store, err, errno, "opendir()", "bodies");
        (void) close(fd);
        return -1;
    }

    while (sweep->n < NANGO_BODY_CANDIDATES) {

        de = readdir(dir);
        if (de == NULL) {
            break;
        }

        if (nango_unhex(raw, sizeof(raw),
                        nango_str(de->d_name, strlen(de->d_name)))
            != 0
            || !nango_body_old(store->bodies, de->d_name, now_ms)
            || nango_body_held(store->bodies, de->d_name))
        {
            continue;
        }

        if (sweep->n == sweep->size) {
            size = sweep->size ? sweep->size * 2 : 64;

            p = realloc(sweep->candidates,
                        size * sizeof(nango_body_candidate_t));
            if (p == NULL) {
                (void) nango_store_error(store, err, ENOMEM, "realloc()",
                                         "bodies");
                (void) closedir(dir);
                return -1;
            }

            sweep->candidates = p;
            sweep->size = size;
        }

        memcpy(sweep->candidates[sweep->n].raw, raw, sizeof(raw));
        sweep->candidates[sweep->n].named = 0;
        sweep->n++;
    }

    (void) closedir(dir);

    return 0;
}


/*
 * What a killed process was receiving.  No record names any of it, and who is
 * still writing after all has a rename that fails, and answers 503.
 */

static int
nango_body_sweep_temp(nango_store_t *store, uint64_t now_ms,
    nango_error_t *err)
{
    int             fd;
    DIR            *dir;
    struct dirent  *de;

    fd = openat(store->bodies, "../temp", O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    if (fd == -1) {
        (void) nango_store_error(store, err, errno, "open()", "temp");
        return -1;
    }

    dir = fdopendir(fd);
    if (dir == NULL) {
        (void) nango_store_error(store, err, errno, "opendir()", "temp");
        (void) close(fd);
        return -1;
    }

    while ((de = readdir(dir)) != NULL) {

        if (nango_body_old(fd, de->d_name, now_ms)) {
            (void) unlinkat(fd, de->d_name, 0);
        }
    }

    (void) closedir(dir);

    return 0;
}


/*
 * Old enough, and without the mark.  By whichever is later of the last write
 * and the rename: a body is adopted some time after it was received, and a
 * copy that was restored is new.
 */

static int
nango_body_old(int dir, const char *name, uint64_t now_ms)
{
    time_t       last;
    struct stat  sb;

    if (fstatat(dir, name, &sb, AT_SYMLINK_NOFOLLOW) == -1
        || !S_ISREG(sb.st_mode)
        || (sb.st_mode & S_IWUSR) == 0)
    {
        return 0;
    }

    last = (sb.st_mtime > sb.st_ctime) ? sb.st_mtime : sb.st_ctime;

    return last >= 0
           && (uint64_t) last * 1000 + NANGO_BODY_ORPHAN_MS < now_ms;
}


static int
nango_body_look_up(void *data, uint64_t sequence, const nango_record_t *record)
{
    nango_body_sweep_t *sweep = data;

    nango_body_candidate_t  *found, key;

    sweep->next = sequence + 1;

    if (record == NULL) {
        sweep->unread++;

    } else if (record->body_file
               && nango_unhex(key.raw, sizeof(key.raw), record->body) == 0)
    {
        found = bsearch(&key, sweep->candidates, sweep->n,
                        sizeof(nango_body_candidate_t), nango_body_compare);

        if (found != NULL) {
            found->named = 1;
        }
    }

    return (++sweep->step == NANGO_BODY_STEP);
}


static int
nango_body_compare(const void *one, const void *two)
{
    const nango_body_candidate_t  *a = one, *b = two;

    return memcmp(a->raw, b->raw, NANGO_BODY_RAW_LEN);
}
