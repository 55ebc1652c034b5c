/*
 * Copyright (C) nginx-nango authors
 *
 * Stores whose files were damaged while nobody had them open.  Whatever is in
 * them, a process that opens one and works with it lives on: it is refused, or
 * it gets errors, or it does not notice.
 *
 * NANGO_SEED repeats another run; NANGO_DAMAGES asks for so many rounds.
 */

#include "store_deliver.h"


#define EVENTS  600
#define ROUNDS  150

/* What a child ends with. */
#define REFUSED   10
#define ERRORS    11
#define UNHARMED  12


typedef struct {
    const char           *name;         /* below the directory */
    unsigned char        *data;
    size_t                len;
} image_t;


static image_t   images[2] = {
    { "log/data.mdb", NULL, 0 },
    { "state/data.mdb", NULL, 0 }
};

static uint64_t  seed;


static uint32_t
chance(uint32_t n)
{
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);

    return (uint32_t) (seed >> 33) % n;
}


static void
path_of(const image_t *image, char path[PATH_MAX + 64])
{
    snprintf(path, PATH_MAX + 64, "%s/%s", directory, image->name);
}


static void
load(image_t *image)
{
    int          fd;
    char         path[PATH_MAX + 64];
    struct stat  sb;

    path_of(image, path);

    fd = open(path, O_RDONLY);
    assert_int_not_equal(fd, -1);
    assert_int_equal(fstat(fd, &sb), 0);

    image->len = (size_t) sb.st_size;
    image->data = malloc(image->len);
    assert_non_null(image->data);
    assert_true(pread(fd, image->data, image->len, 0)
                == (ssize_t) image->len);

    close(fd);
}


static void
store(const image_t *image, const unsigned char *data, size_t len)
{
    int   fd;
    char  path[PATH_MAX + 64];

    path_of(image, path);

    fd = open(path, O_WRONLY|O_CREAT|O_TRUNC, 0600);
    assert_int_not_equal(fd, -1);
    assert_true(write(fd, data, len) == (ssize_t) len);
    close(fd);
}


static event_t
event(unsigned n)
{
    event_t      e;
    static char  id[32], tags[128];

    memset(&e, 0, sizeof(e));

    snprintf(id, sizeof(id), "c%u", n * 7 % 250);
    snprintf(tags, sizeof(tags), "{\"a\":\"%u\",\"b\":\"%u\"}", n % 5, n % 3);

    e.id = id;
    e.tags = tags;
    e.op = (n % 11 == 0) ? NANGO_OP_DELETION
           : (n % 3 == 0) ? NANGO_OP_OVERRIDE : NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.hmac = n;
    e.dedupe = REMEMBER;
    e.at = n;

    /* some are larger than a page, and some than several */

    e.pad = (n % 10 == 0) ? 9000 : (n % 7 == 0) ? 2500 : 100;

    return e;
}


static nango_subscriber_t  app;


/* Reads, settles some of each kind, prunes, acts. */

static nango_rc_e
deliver(nango_store_t *s)
{
    int                     more;
    owing_t                 o;
    uint64_t                n;
    nango_rc_e              rc, hand;
    nango_folded_t          folded;
    nango_pruned_t          pruned;
    nango_ledger_t          l;
    nango_reader_t         *r;
    nango_settlement_t      settlement;
    nango_fold_options_t    options;
    nango_prune_options_t   prune;
    nango_delivery_read_t   how;

    memset(&o, 0, sizeof(o));
    memset(&l, 0, sizeof(l));
    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));
    memset(&prune, 0, sizeof(prune));
    memset(&how, 0, sizeof(how));

    r = nango_reader_create(s);

    if (nango_reader_begin(r, &failure) == NANGO_OK) {
        (void) nango_reader_ledger(r, app.key, &l, &failure);
        nango_reader_end(r);
    }

    nango_reader_free(r);

    o.position = l.cursor;
    how.now_ms = T0;
    how.max_events = 40;
    how.max_bytes = 1024 * 1024;

    rc = nango_delivery_read(s, &app, &how, &o.position, &o.more,
                             &o.deliveries, &o.settled, &o.nsettled, &o.size,
                             &failure);

    if (rc == NANGO_OK) {
        rc = nango_delivery_due(s, &app, T0, 5, 1024 * 1024, NULL, NULL,
                                &o.next_at, &o.deliveries, &o.settled,
                                &o.nsettled, &o.size, &failure);
    }

    while (o.deliveries) {
        n = o.deliveries->sequence;
        (void) settle(&o, n % 3 == 0 ? NANGO_SETTLED_DELIVERED
                          : n % 3 == 1 ? NANGO_SETTLED_WAITING
                                       : NANGO_SETTLED_DEAD, 0);
    }

    memcpy(settlement.key, app.key, NANGO_KEY_LEN);
    settlement.cursor_before = l.cursor;
    settlement.cursor = o.position;
    settlement.settled = o.settled;
    settlement.nsettled = o.nsettled;

    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.max_events = 1;
    options.settlements = &settlement;
    options.nsettlements = 1;

    if (rc == NANGO_OK) {
        rc = nango_fold(s, &options, &folded, &failure);
    }

    owing_free(&o);

    if (rc == NANGO_OK) {
        hand = nango_delivery_redeliver(s, app.key, 0, 2, T0, &n, &more,
                                        &failure);
        rc = (hand == NANGO_EINVAL) ? NANGO_OK : hand;
    }

    prune.now_ms = T0 + 2 * HOUR;
    prune.max_events = 5;
    n = 0;

    if (rc == NANGO_OK) {
        rc = nango_log_prune(s, &prune, &n, &pruned, &failure);
    }

    return rc;
}


/* A tree of some levels, and free pages, in each. */

static void
make_images(void)
{
    unsigned         n;
    event_t          e;
    nango_store_t   *s;
    nango_writer_t  *w;

    s = store_open();
    w = nango_writer_create(s, REMEMBER);
    assert_non_null(w);

    app = subscriber("prod", "app");
    subscribe(s, &app);

    for (n = 1; n <= EVENTS; n++) {
        e = event(n);
        (void) commit_one(w, &e, NANGO_WRITE_STORED);

        if (n % 50 == 0 && n != EVENTS) {
            fold(s);
            assert_ok(deliver(s));
        }
    }

    nango_writer_free(w);
    nango_store_close(s);

    load(&images[0]);
    load(&images[1]);
}


static int
nothing(void *data, uint64_t sequence, const nango_record_t *record)
{
    volatile unsigned char  c;

    if (record != NULL && record->body.len) {
        c = record->body.data[record->body.len - 1];
        (void) c;
    }

    (*(unsigned *) data)++;

    return 0;
}


/* All that a worker does with a store. */

static int
work(void *data)
{
    int                    i, errors;
    unsigned               n, j;
    event_t                e;
    nango_rc_e             rc;
    nango_tag_t            tag;
    nango_owned_t         *o;
    nango_store_t         *s;
    nango_write_t         *job;
    nango_writer_t        *w;
    nango_reader_t        *r;
    nango_folded_t         folded;
    nango_connection_t     c;
    nango_fold_options_t   options;

    /* cmocka would end it in a way of its own */

    (void) signal(SIGBUS, SIG_DFL);
    (void) signal(SIGSEGV, SIG_DFL);
    (void) signal(SIGFPE, SIG_DFL);

    (void) alarm(20);

    if (store_try(&s, SIZE) != NANGO_OK) {
        return REFUSED;
    }

    errors = 0;
    w = nango_writer_create(s, REMEMBER);
    r = nango_reader_create(s);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + HOUR / 2;
    options.retain_ms = 1;
    options.max_events = 100;

    for (i = 0; i < 8; i++) {

        for (j = 0; j < 5; j++) {
            e = event(EVENTS + (unsigned) i * 5 + j + 1);
            job = job_make(&e);
            rc = nango_log_commit(w, &job, 1, &failure);
            errors += (rc != NANGO_OK);
            job_free(job);

            if (rc == NANGO_EWRECKED) {
                return ERRORS;
            }
        }

        options.now_ms += 3 * HOUR;
        rc = nango_fold(s, &options, &folded, &failure);
        errors += (rc != NANGO_OK);

        if (rc == NANGO_EWRECKED) {
            return ERRORS;
        }

        rc = deliver(s);
        errors += (rc != NANGO_OK);

        if (rc == NANGO_EWRECKED) {
            return ERRORS;
        }

        if (nango_reader_begin(r, &failure) == NANGO_OK) {
            tag.name = S("a");
            tag.value = Z(i % 2 ? "1" : "2");

            o = nango_owned_open(r, S("prod"), &tag, 1, 0, &failure);

            for (n = 0; o && n < 1000; n++) {
                if (nango_owned_next(o, &c, &failure) != 1) {
                    break;
                }

                errors += (nango_connection_size(&c) == 0);
            }

            nango_owned_close(o);

            (void) nango_reader_changed(r, S("prod"), &tag, 1, 1, &failure);
            nango_reader_end(r);

        } else {
            errors++;
        }

        n = 0;
        errors += (nango_log_scan(s, 0, nothing, &n, &failure) != 0);

        if (nango_store_needs_recovery(s)) {
            s->retry_at = 0;

            if (nango_store_recover(s, &failure) != NANGO_OK) {
                return ERRORS;
            }
        }
    }

    nango_reader_free(r);
    nango_writer_free(w);
    nango_store_close(s);

    return errors ? ERRORS : UNHARMED;
}


/* What has happened to files: of disks, of copies, of people. */

static const char *
damage(unsigned char *data, size_t *len, size_t used)
{
    size_t    page, other, at, i, n;
    uint32_t  kind;

    page = chance((uint32_t) (used / 4096)) * 4096;
    other = chance((uint32_t) (used / 4096)) * 4096;
    kind = chance(10);

    switch (kind) {

    case 0:
        for (i = 0; i < 4096; i++) {
            data[page + i] = (unsigned char) chance(256);
        }

        return "a page of noise";

    case 1:
        memset(data + page, 0, 4096);
        return "a page of zeros";

    case 2:
        memcpy(data + page, data + other, 4096);
        return "a page over another";

    case 3:
        *len = chance((uint32_t) *len);
        return "cut short";

    case 4:
        memset(data + (page & ~(size_t) 65535), 0, 65536);
        return "a hole";

    case 5:
    case 6:
        /* where a page says what it is and where its nodes are */

        for (n = 1 + chance(3); n; n--) {
            at = page + chance(64);
            data[at] = (unsigned char) chance(256);
        }

        return "bytes of a head";

    case 7:
        for (n = 1 + chance(8); n; n--) {
            at = page + chance(4096);
            data[at] ^= (unsigned char) (1 << chance(8));
        }

        return "bits";

    case 8:
        page = chance(2) * 4096;
        at = page + 16 + chance(136);
        data[at] = (unsigned char) chance(256);
        return "a byte of the first pages";

    default:
        for (n = 1 + chance(4); n; n--) {
            at = page + 16 + chance(2000) * 2;
            data[at] = (unsigned char) chance(256);
            data[at + 1] = (unsigned char) chance(2);
        }

        return "some offsets";
    }
}


static int
wait_for(pid_t pid)
{
    int  status;

    assert_int_equal(waitpid(pid, &status, 0), pid);

    return status;
}


static void
damaged_stores_end_nobody(void **state)
{
    int             rc, status, kinds[UNHARMED + 1];
    long            round, rounds;
    pid_t           pid;
    size_t          len, used;
    image_t        *image;
    uint64_t        before;
    const char     *env, *what, *more;
    unsigned char  *data;

    env = getenv("NANGO_SEED");
    seed = env ? strtoull(env, NULL, 10) : (uint64_t) time(NULL);

    env = getenv("NANGO_DAMAGES");
    rounds = env ? atol(env) : ROUNDS;

    make_images();
    memset(kinds, 0, sizeof(kinds));

    len = images[0].len > images[1].len ? images[0].len : images[1].len;
    data = malloc(len + 65536);
    assert_non_null(data);

    for (round = 0; round < rounds; round++) {
        before = seed;

        store(&images[0], images[0].data, images[0].len);
        store(&images[1], images[1].data, images[1].len);

        what = "nothing";
        more = "";
        image = &images[0];

        if (round != 0) {
            image = &images[chance(2)];
            len = image->len;
            memcpy(data, image->data, len);
            memset(data + len, 0, 65536);

            /* behind it there is only room */

            used = ((size_t) nango_get_le(data + 16 + 120, 8) + 1) * 4096;

            what = damage(data, &len, used);

            if (chance(3) == 0) {
                more = damage(data, &len, used);
            }

            store(image, data, len);
        }

        pid = fork();
        assert_int_not_equal(pid, -1);

        if (pid == 0) {
            rc = work(NULL);
#ifdef COVERAGE
            __gcov_dump();
#endif
            _exit(rc);
        }

        status = wait_for(pid);

        if (!WIFEXITED(status) || WEXITSTATUS(status) < REFUSED
            || (round == 0 && WEXITSTATUS(status) != UNHARMED))
        {
            print_error("status %x, round %ld, NANGO_SEED=%llu: %s, %s in "
                        "%s\n", (unsigned) status, round,
                        (unsigned long long) before, what, more, image->name);
            fail();
        }

        kinds[WEXITSTATUS(status)]++;
    }

    print_message("%ld rounds: %d refused, %d with errors, %d unharmed\n",
                  rounds, kinds[REFUSED], kinds[ERRORS], kinds[UNHARMED]);

    /* Who refuses all or nothing has shown nothing. */

    if (rounds >= ROUNDS) {
        assert_true(kinds[REFUSED] > rounds / 4);
        assert_true(kinds[UNHARMED] > 1);
    }

    free(data);
    free(images[0].data);
    free(images[1].data);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(damaged_stores_end_nobody)
    };

    /* Thousands of syncs that nobody needs. */

    if (access("/dev/shm", W_OK) == 0) {
        (void) setenv("TMPDIR", "/dev/shm", 0);
    }

    return cmocka_run_group_tests_name("damage", tests, NULL, NULL);
}
