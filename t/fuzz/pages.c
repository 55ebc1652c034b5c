/*
 * Copyright (C) nginx-nango authors
 *
 * LMDB's files with some of their bytes changed while nobody had them open.
 * Bytes are patches: a file, a page, a place in it that LMDB gives a meaning,
 * and what is there now.  Whoever opens such a store and works with it is
 * refused, gets errors with their words, or does not notice.
 */


#include "fuzz_store.h"

#include <pthread.h>


#define PAGE      4096
#define FREE_ROOT   80          /* in a page that LMDB begins with */
#define EVENTS    120
#define EVENTS_ALL  1024
#define RECORD    10000


typedef struct {
    int                   again;
    size_t                known;        /* by sums, in their order */
    size_t                n;
    uint64_t              sums[EVENTS_ALL];
} events_t;

typedef struct {
    const char           *name;         /* below the directory */
    unsigned char        *data;
    size_t                len;          /* pages in use */
    size_t                free;         /* where it lists the others */
    size_t                size;         /* of the file */
} image_t;


static image_t  images[2] = {
    { "log/data.mdb", NULL, 0, 0, 0 },
    { "state/data.mdb", NULL, 0, 0, 0 }
};


int __lsan_is_turned_off(void);


/* What LMDB is thrown out of it cannot free; so be it. */

int
__lsan_is_turned_off(void)
{
    return 1;
}


static nango_rc_e
commit(nango_writer_t *writer, unsigned n)
{
    int              len;
    nango_rc_e       rc;
    nango_write_t    job, *jobs[1];
    nango_record_t   rec;
    static char      body[RECORD];
    unsigned char    record[RECORD + 1024];

    /* some are larger than a page */

    len = snprintf(body, sizeof(body), "{\"tags\":{\"a\":\"%u\",\"b\":\"%u\"},"
                   "\"pad\":\"%*s\"}", n % 5, n % 3,
                   (n % 10 == 0) ? 9000 : (n % 7 == 0) ? 2500 : 100, "");

    memset(&rec, 0, sizeof(rec));
    memset(&job, 0, sizeof(job));

    rec.type = NANGO_TYPE_AUTH;
    rec.operation = (n % 11 == 0) ? NANGO_OP_DELETION
                    : (n % 3 == 0) ? NANGO_OP_OVERRIDE : NANGO_OP_CREATION;
    rec.success = NANGO_SUCCESS_TRUE;
    rec.received_at = T0 + n;
    rec.hmac[0] = (unsigned char) n;
    rec.environment = S("prod");
    rec.integration = S("github");
    rec.connection_id = nango_str(&"abcdefghijklmnopqrstuvwxyz"[n * 7 % 26],
                                  1);
    rec.body = nango_str(body, (size_t) len);
    rec.body_len = rec.body.len;

    job.len = nango_record_size(&rec);
    check(job.len != 0 && job.len <= sizeof(record));
    nango_record_encode(&rec, record);

    job.record = record;
    job.received_at = rec.received_at;
    job.dedupe_ms = 60000;
    memcpy(job.hmac, rec.hmac, NANGO_HMAC_LEN);
    check(nango_environment_key(job.environment, rec.environment) == 0);

    jobs[0] = &job;
    rc = nango_log_commit(writer, jobs, 1, &failure);

    check((rc == NANGO_OK) == (job.result == NANGO_WRITE_STORED
                               || job.result == NANGO_WRITE_DUPLICATE));

    return rc;
}


static nango_rc_e
fold(unsigned max)
{
    nango_folded_t        folded;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));

    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.max_events = max;

    return nango_fold(store, &options, &folded, &failure);
}


/* What is read is settled: some of each kind. */

static nango_rc_e
deliver(void)
{
    int                      more;
    size_t                   i, n, size;
    uint64_t                 next_at;
    nango_rc_e               rc;
    nango_folded_t           folded;
    nango_settled_t         *settled;
    nango_delivery_t        *list, *d;
    nango_subscriber_t       s;
    nango_settlement_t       settlement;
    nango_fold_options_t     options;
    nango_delivery_read_t    how;

    memset(&s, 0, sizeof(s));
    memset(&how, 0, sizeof(how));
    memset(&options, 0, sizeof(options));
    memset(&settlement, 0, sizeof(settlement));

    s.environment = S("prod");
    s.name = S("app");
    s.from_start = 1;

    check(nango_subscriber_key(s.key, s.environment, s.name) == 0);

    rc = nango_delivery_register(store, &s, 1, T0, &failure);

    if (rc != NANGO_OK) {
        return rc;
    }

    list = NULL;
    settled = NULL;
    n = 0;
    size = 0;

    how.now_ms = T0;
    how.max_events = EVENTS;
    how.max_bytes = 1024 * 1024;

    rc = nango_delivery_read(store, &s, &how, &settlement.cursor, &more, &list,
                             &settled, &n, &size, &failure);

    if (rc == NANGO_OK) {
        rc = nango_delivery_due(store, &s, T0, 10, 100000, NULL, NULL,
                                &next_at, &list, &settled, &n, &size,
                                &failure);
    }

    for (i = n, d = list; d; d = d->next) {
        i++;
    }

    settled = realloc(settled, (i + 1) * sizeof(nango_settled_t));
    check(settled != NULL);

    for (i = n; list; i++) {
        d = list;
        list = d->next;

        memset(&settled[i], 0, sizeof(nango_settled_t));
        settled[i].sequence = d->sequence;
        settled[i].row = d->row;
        settled[i].kind = (i % 3 == 0) ? NANGO_SETTLED_DELIVERED
                          : (i % 3 == 1) ? NANGO_SETTLED_WAITING
                                         : NANGO_SETTLED_DEAD;
        memcpy(settled[i].lane, d->lane, NANGO_KEY_LEN);

        nango_delivery_free(d);
    }

    memcpy(settlement.key, s.key, NANGO_KEY_LEN);
    settlement.settled = settled;
    settlement.nsettled = i;

    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.settlements = &settlement;
    options.nsettlements = 1;

    if (rc == NANGO_OK) {
        rc = nango_fold(store, &options, &folded, &failure);
    }

    free(settled);

    return rc;
}


/* A tree of some levels, and free pages, in each. */

static void
images_make(void)
{
    int              fd;
    size_t           i;
    char             path[128];
    uint64_t         root, txnid[2];
    unsigned         n;
    MDB_envinfo      info;
    struct stat      sb;
    nango_writer_t  *writer;

    store_open(SIZE);

    writer = nango_writer_create(store, 120000);
    check(writer != NULL);

    for (n = 1; n <= EVENTS; n++) {
        check_ok(commit(writer, n));

        if (n % 25 == 0) {
            check_ok(fold(0));
        }

        if (n == EVENTS / 2) {
            check_ok(deliver());
        }
    }

    nango_writer_free(writer);

    for (i = 0; i < 2; i++) {
        check(mdb_env_info(i ? store->state : store->log, &info) == 0);
        images[i].len = (info.me_last_pgno + 1) * PAGE;
        txnid[i] = info.me_last_txnid;
    }

    store_close();

    for (i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s", directory, images[i].name);

        fd = open(path, O_RDONLY);
        check(fd != -1 && fstat(fd, &sb) == 0);

        images[i].size = (size_t) sb.st_size;
        images[i].data = malloc(images[i].len);
        check(images[i].data != NULL);
        check(pread(fd, images[i].data, images[i].len, 0)
              == (ssize_t) images[i].len);

        close(fd);

        memcpy(&root, images[i].data + (txnid[i] & 1) * PAGE + FREE_ROOT, 8);
        images[i].free = (root < images[i].len / PAGE) ? (size_t) root : 0;
    }
}


/* Both files as they were, but for the patches. */

static void
images_store(nango_str_t *in, int fds[2])
{
    size_t                i, page, place;
    unsigned              b, node;
    uint16_t              offset;
    nango_str_t           bytes;
    const image_t        *image;
    const unsigned char  *data;

    for (i = 0; i < 2; i++) {
        check(ftruncate(fds[i], 0) == 0);
        check(pwrite(fds[i], images[i].data, images[i].len, 0)
              == (ssize_t) images[i].len);
        check(ftruncate(fds[i], (off_t) images[i].size) == 0);
    }

    while (in->len) {
        b = take_byte(in);
        image = &images[b & 1];
        page = take_byte(in);
        page = (page == 0xff) ? image->free : page % (image->len / PAGE);
        data = image->data + page * PAGE;
        node = take_byte(in);

        switch (b >> 1 & 3) {

        case 0:                             /* its head */
            place = node % 20;
            break;

        case 1:                             /* a node, and its value */
            memcpy(&offset, data + 16 + (node >> 4) * 2, 2);
            place = offset + (node & 15) * 2;
            break;

        case 2:                             /* a node's place */
            place = 16 + node % 64;
            break;

        default:                            /* anywhere */
            place = node * 16 + take_byte(in) % 16;
        }

        bytes = take_bytes(in, 1 + (b >> 3 & 7));
        place %= PAGE - 8;

        check(pwrite(fds[b & 1], bytes.data, bytes.len,
                     (off_t) (page * PAGE + place))
              == (ssize_t) bytes.len);

        /* the file's end */

        if (b >= 0xf8) {
            check(ftruncate(fds[b & 1], (off_t) (page * PAGE + place)) == 0);
        }
    }
}


/* Keeps a sum of each event, or compares it with the one from before. */

static int
scan_one(void *data, uint64_t sequence, const nango_record_t *rec)
{
    size_t      i;
    uint64_t    sum;
    events_t   *e = data;

    sum = sequence;

    for (i = 0; rec != NULL && i < rec->body.len; i++) {
        sum = sum * 31 + rec->body.data[i];
    }

    if (rec != NULL) {
        check(nango_record_size(rec) != 0);
        sum = sum * 31 + rec->received_at;
    }

    if (e->again && e->n < e->known) {
        check(e->sums[e->n] == sum);

    } else if (e->n < EVENTS_ALL) {
        e->sums[e->n] = sum;
    }

    return ++e->n == EVENTS_ALL;
}


/*
 * What was there when the store was opened stays, whatever is written then: no
 * page of it may have been taken for a free one.
 */

static void
read_all(events_t *events)
{
    int                  i, n, rc;
    uint64_t             first, last;
    nango_tag_t          tags[2];
    nango_owned_t       *owned;
    nango_counts_t       counts;
    unsigned char        key[NANGO_KEY_LEN];
    nango_connection_t   c;

    events->n = 0;

    rc = nango_log_scan(store, 0, scan_one, events, &failure);
    check(rc >= -1 && rc <= 1);

    if (!events->again) {
        events->known = events->n;
        events->again = 1;

    } else if (rc != -1) {
        check(events->n >= events->known);
    }

    (void) nango_log_bounds(store, &first, &last, &failure);

    if (nango_reader_begin(reader, &failure) != NANGO_OK) {
        return;
    }

    (void) nango_reader_counts(reader, &counts, &failure);

    for (i = 0; i < 26; i++) {
        check(nango_connection_key(key, S("prod"), S("github"),
                          nango_str(&"abcdefghijklmnopqrstuvwxyz"[i], 1))
              == 0);

        rc = nango_reader_connection(reader, key, &c, &failure);
        check(rc >= -1 && rc <= 1);
    }

    tags[0].name = S("a");
    tags[0].value = S("1");
    tags[1].name = S("b");
    tags[1].value = S("2");

    owned = nango_owned_open(reader, S("prod"), tags, 2, 0, &failure);

    if (owned != NULL) {
        for (n = 0; n < 100; n++) {
            rc = nango_owned_next(owned, &c, &failure);

            if (rc != 1) {
                break;
            }

            check(nango_connection_size(&c) != 0);
        }

        nango_owned_close(owned);
    }

    (void) nango_reader_changed(reader, S("prod"), tags, 1, 3, &failure);

    nango_reader_end(reader);
}


static void
again(nango_rc_e rc)
{
    check(rc == NANGO_OK || failure.text[0] != '\0');

    if (nango_store_needs_recovery(store)) {
        (void) nango_store_recover(store, &failure);
    }
}


/*
 * A thread of its own for each input: what LMDB was thrown out of while it
 * wrote keeps the writer's lock for as long as its thread lives.
 */

static void *
work(void *data)
{
    nango_rc_e              rc;
    nango_writer_t         *writer;
    static events_t         events;
    nango_store_options_t   options;

    memset(&options, 0, sizeof(options));
    memset(&events, 0, sizeof(events));

    options.path = directory;
    options.size = SIZE;

    failure.text[0] = '\0';

    rc = nango_store_open(&store, &options, &failure);

    if (rc != NANGO_OK) {
        check(store == NULL && failure.code == rc && failure.text[0] != '\0');
        return NULL;
    }

    reader = nango_reader_create(store);
    writer = nango_writer_create(store, 120000);
    check(reader != NULL && writer != NULL);

    read_all(&events);
    again(NANGO_OK);

    again(fold(7));
    again(deliver());
    again(commit(writer, EVENTS + 1));
    again(commit(writer, EVENTS + 10));
    again(fold(0));

    read_all(&events);

    nango_writer_free(writer);
    store_close();

    return NULL;
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t       i;
    char         path[128];
    pthread_t    thread;
    nango_str_t  in;
    static int   fds[2] = { -1, -1 };

    if (images[0].data == NULL) {
        images_make();

        for (i = 0; i < 2; i++) {
            snprintf(path, sizeof(path), "%s/%s", directory, images[i].name);
            fds[i] = open(path, O_RDWR|O_CLOEXEC);
            check(fds[i] != -1);
        }
    }

    in = nango_str(data, size);
    images_store(&in, fds);

    for (i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%s/lock.mdb", directory,
                 i ? "state" : "log");
        (void) unlink(path);
    }

    check(pthread_create(&thread, NULL, work, NULL) == 0);
    check(pthread_join(thread, NULL) == 0);

    for (i = 0; i < lmdb_ncopies; i++) {
        free(lmdb_copies[i].data);
    }

    lmdb_ncopies = 0;

    return 0;
}
