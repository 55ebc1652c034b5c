/*
 * Copyright (C) nginx-nango authors
 *
 * What the tests of the store share: a directory for each test, events made of
 * a few words, and commits and folds that have to succeed.
 */

#ifndef _STORE_TEST_H_INCLUDED_
#define _STORE_TEST_H_INCLUDED_


#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* nftw() */
#endif

#include "core_test.h"

#ifdef COVERAGE
#include <gcov.h>
#endif

#include "nango_fold.h"
#include "nango_log.h"
#include "nango_tables.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>


#define T0        UINT64_C(1700000000000)
#define HOUR      UINT64_C(3600000)
#define SIZE      (UINT64_C(64) * 1024 * 1024)
#define REMEMBER  UINT64_C(120000)

#define assert_ok(rc)                                                         \
    do {                                                                      \
        int  _rc = (rc);                                                      \
        if (_rc != NANGO_OK) {                                                \
            print_error("rc %d: %s\n", _rc, failure.text);                    \
            _fail(__FILE__, __LINE__);                                        \
        }                                                                     \
    } while (0)

#define assert_sequence(n, expected)                                          \
    assert_int_equal((long long) (n), (long long) (expected))


/* An event.  What is left out is "prod", "github" and an auth event's. */

typedef struct {
    const char           *environment;
    const char           *integration;
    const char           *id;
    const char           *tags;         /* JSON */
    const char           *error;        /* its type */
    const char           *provider;
    nango_source_e        source;
    nango_type_e          type;         /* OTHER: auth */
    int                   other;        /* 1: really OTHER */
    nango_op_e            op;
    nango_success_e       success;
    uint64_t              at;           /* after T0, in ms */
    unsigned              hmac;
    uint64_t              dedupe;
    uint64_t              unseen;
    size_t                pad;          /* of the body */
    const char           *body_file;
    uint64_t              body_len;
} event_t;


static nango_error_t  failure;
static char           directory[PATH_MAX];


static inline int
remove_one(const char *path, const struct stat *sb, int type, struct FTW *ftw)
{
    return remove(path);
}


static inline int
directory_make(void **state)
{
    const char  *tmp;

    tmp = getenv("TMPDIR");

    snprintf(directory, sizeof(directory), "%s/nango-store-XXXXXX",
             tmp ? tmp : "/tmp");

    return mkdtemp(directory) == NULL;
}


static inline int
directory_remove(void **state)
{
    return nftw(directory, remove_one, 16, FTW_DEPTH|FTW_PHYS);
}


static inline void
remove_below(const char *name)
{
    char  path[PATH_MAX + 64];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH|FTW_PHYS), 0);
}


static inline void
rename_below(const char *from, const char *to)
{
    char  a[PATH_MAX + 64], b[PATH_MAX + 64];

    snprintf(a, sizeof(a), "%s/%s", directory, from);
    snprintf(b, sizeof(b), "%s/%s", directory, to);
    assert_int_equal(rename(a, b), 0);
}


static inline nango_rc_e
store_try(nango_store_t **store, uint64_t size)
{
    nango_store_options_t  options;

    memset(&options, 0, sizeof(options));
    options.path = directory;
    options.size = size;

    return nango_store_open(store, &options, &failure);
}


static inline nango_store_t *
store_open(void)
{
    nango_store_t  *store;

    assert_ok(store_try(&store, SIZE));

    return store;
}


/*
 * Some that are alike where a hash would look.  The number is found again by
 * hmac_number().
 */

static inline void
hmac_make(unsigned char hmac[NANGO_HMAC_LEN], unsigned n)
{
    memset(hmac, 0, NANGO_HMAC_LEN);
    nango_put_le(hmac, n * 2654435761U >> 20, 8);
    nango_put_le(hmac + 16, n, 4);
    hmac[31] = 1;
}


static inline unsigned
hmac_number(const unsigned char hmac[NANGO_HMAC_LEN])
{
    return (unsigned) nango_get_le(hmac + 16, 4);
}


static inline nango_write_t *
job_make(const event_t *e)
{
    size_t           len, size;
    char            *body;
    nango_write_t   *job;
    unsigned char   *record;
    nango_record_t   rec;

    memset(&rec, 0, sizeof(rec));

    rec.source = e->source;
    rec.type = e->other ? NANGO_TYPE_OTHER
                        : e->type ? e->type : NANGO_TYPE_AUTH;
    rec.operation = e->op;
    rec.success = e->success;
    rec.received_at = T0 + e->at;
    rec.environment = Z(e->environment ? e->environment : "prod");
    rec.type_name = Z(nango_type_name(rec.type));
    rec.integration = Z(e->integration ? e->integration : "github");
    rec.connection_id = Z(e->id ? e->id : "");
    rec.headers = S("Content-Type: application/json\r\n");

    hmac_make(rec.hmac, e->hmac);

    size = 1024 + (e->tags ? strlen(e->tags) : 0)
           + (e->id ? strlen(e->id) : 0) + e->pad;

    body = malloc(size);
    assert_non_null(body);

    len = snprintf(body, size,
                   "{\"type\":\"%s\",\"operation\":\"%s\",\"success\":%s,"
                   "\"connectionId\":\"%s\",\"providerConfigKey\":\"%s\","
                   "\"provider\":\"%s\",\"tags\":%s,"
                   "\"error\":{\"type\":\"%s\",\"description\":\"%s%s\"},"
                   "\"pad\":\"",
                   nango_type_name(rec.type), nango_op_name(e->op),
                   e->success == NANGO_SUCCESS_TRUE ? "true"
                   : e->success == NANGO_SUCCESS_FALSE ? "false" : "null",
                   e->id ? e->id : "",
                   e->integration ? e->integration : "github",
                   e->provider ? e->provider : "github",
                   e->tags ? e->tags : "{}",
                   e->error ? e->error : "", e->error ? "of " : "",
                   e->error ? e->error : "");

    memset(body + len, 'x', e->pad);
    len += e->pad;
    memcpy(body + len, "\"}", 2);
    len += 2;

    rec.body = nango_str(body, len);
    rec.body_len = len;

    if (e->body_file) {
        rec.body = Z(e->body_file);
        rec.body_file = 1;
        rec.body_len = e->body_len;
    }

    len = nango_record_size(&rec);
    assert_int_not_equal(len, 0);

    record = malloc(len);
    assert_non_null(record);
    nango_record_encode(&rec, record);

    free(body);

    job = calloc(1, sizeof(nango_write_t));
    assert_non_null(job);

    job->record = record;
    job->len = len;
    job->dedupe_ms = e->dedupe;
    job->unseen = e->unseen;
    job->received_at = rec.received_at;
    memcpy(job->hmac, rec.hmac, NANGO_HMAC_LEN);
    assert_int_equal(nango_environment_key(job->environment, rec.environment),
                     0);

    return job;
}


static inline void
job_free(nango_write_t *job)
{
    free((void *) job->record);
    free(job);
}


/* Commits one event; its sequence, which is 0 if it was not stored. */

static inline uint64_t
commit_one(nango_writer_t *writer, const event_t *e,
    nango_write_result_e expected)
{
    uint64_t        sequence;
    nango_write_t  *job;

    job = job_make(e);
    (void) nango_log_commit(writer, &job, 1, &failure);

    if (job->result != expected) {
        print_error("result %d instead of %d: %s\n", job->result, expected,
                    failure.text);
        fail();
    }

    sequence = job->sequence;
    job_free(job);

    return sequence;
}


static inline uint64_t
append(nango_store_t *store, const event_t *e)
{
    uint64_t         sequence;
    nango_writer_t  *writer;

    writer = nango_writer_create(store, 0);
    assert_non_null(writer);

    sequence = commit_one(writer, e, NANGO_WRITE_STORED);

    nango_writer_free(writer);

    return sequence;
}


/* Everything; what the last call that did something said, with sums. */

static inline nango_folded_t
fold_at(nango_store_t *store, uint64_t after, uint64_t retain, size_t batch)
{
    nango_folded_t        folded, sum;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));
    memset(&sum, 0, sizeof(sum));

    options.now_ms = T0 + after;
    options.retain_ms = retain;
    options.max_events = batch;

    do {
        assert_ok(nango_fold(store, &options, &folded, &failure));

        sum.events += folded.events;
        sum.not_understood += folded.not_understood;
        sum.gap += folded.gap;
        sum.applied = folded.applied;

        if (sum.from == 0) {
            sum.from = folded.from;
        }

    } while (folded.more);

    return sum;
}


static inline nango_folded_t
fold(nango_store_t *store)
{
    return fold_at(store, 0, 7 * 24 * HOUR, 0);
}


static inline nango_reader_t *
snapshot(nango_store_t *store)
{
    nango_reader_t  *reader;

    reader = nango_reader_create(store);
    assert_non_null(reader);
    assert_ok(nango_reader_begin(reader, &failure));

    return reader;
}


static inline void
snapshot_end(nango_reader_t *reader)
{
    nango_reader_end(reader);
    nango_reader_free(reader);
}


static inline nango_counts_t
counts(nango_store_t *store)
{
    nango_counts_t   c;
    nango_reader_t  *reader;

    reader = snapshot(store);
    assert_ok(nango_reader_counts(reader, &c, &failure));
    snapshot_end(reader);

    return c;
}


/* 1, 0; *c is valid until the snapshot ends. */

static inline int
find(nango_reader_t *reader, const char *id, nango_connection_t *c)
{
    unsigned char  key[NANGO_KEY_LEN];

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"), Z(id)),
                     0);

    return nango_reader_connection(reader, key, c, &failure);
}


/* How many connections of prod have the tag, and the first one's id. */

static inline int
owned(nango_reader_t *reader, const char *name, const char *value)
{
    int                  n, rc;
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_connection_t   c;

    tag.name = Z(name);
    tag.value = Z(value);

    o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &failure);
    assert_non_null(o);

    for (n = 0; ; n++) {
        rc = nango_owned_next(o, &c, &failure);
        if (rc == 0) {
            break;
        }

        assert_int_equal(rc, 1);
    }

    nango_owned_close(o);

    return n;
}


/*
 * A child that calls f and ends, and what f returned.  Not by the exit code,
 * which valgrind makes its own where a child leaves something behind.
 */

#define CHILDREN  64

typedef struct {
    pid_t                 pid;
    int                   code;
} child_t;

static child_t  *children;


static inline pid_t
spawn(int (*f)(void *data), void *data)
{
    pid_t       pid;
    child_t    *child;
    static int  n;

    if (children == NULL) {
        children = mmap(NULL, CHILDREN * sizeof(child_t),
                        PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS, -1, 0);
        assert_true(children != MAP_FAILED);
    }

    child = &children[n++ % CHILDREN];
    child->code = 0;

    fflush(NULL);

    pid = fork();

    if (pid == 0) {
        child->code = f(data);
#ifdef COVERAGE
        __gcov_dump();
#endif
        _exit(0);
    }

    assert_true(pid > 0);
    child->pid = pid;

    return pid;
}


static inline int
reap(pid_t pid)
{
    int  i, status;

    assert_int_equal(waitpid(pid, &status, 0), pid);

    if (!WIFEXITED(status)) {
        return -WTERMSIG(status);
    }

    for (i = 0; i < CHILDREN; i++) {
        if (children[i].pid == pid) {
            children[i].pid = 0;
            return children[i].code;
        }
    }

    fail();

    return -1;
}


static inline void
sleep_us(long us)
{
    struct timespec  ts;

    ts.tv_sec = us / 1000000;
    ts.tv_nsec = us % 1000000 * 1000;

    (void) nanosleep(&ts, NULL);
}


/* The same numbers in each run. */

static inline unsigned
random_below(unsigned n)
{
    static uint64_t  x = UINT64_C(0x9e3779b97f4a7c15);

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;

    return (unsigned) (x >> 33) % n;
}


#define store_unit(f)                                                         \
    cmocka_unit_test_setup_teardown(f, directory_make, directory_remove)


#endif /* _STORE_TEST_H_INCLUDED_ */
