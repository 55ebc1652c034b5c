/*
 * Copyright (C) nginx-nango authors
 *
 * See nango_memo.h.  Sets of four places, side by side, by the hash; what is in
 * a place are the hash and an entry.  Entries are taken one after the other, so
 * that they fill pages of memory before they need others.  A lookup reads the
 * set, the entry, and when its owner was changed last.  Owners share the last,
 * 65,536 of them; a change then costs somebody else a lookup.
 *
 * Time is counted in versions: one for each snapshot that had changes.
 */


#include "nango_tables.h"
#include "nango_memo.h"

#include <stdlib.h>


#define NANGO_MEMO_WAYS    4
#define NANGO_MEMO_OWNERS  65536

/* Events that it follows in one snapshot: a fraction of a millisecond. */
#define NANGO_MEMO_FOLLOW  4096


typedef struct {
    uint64_t              version;      /* when it was kept */
    uint16_t              owner;
    uint8_t               status;
    uint8_t               question;     /* lengths */
    uint8_t               connection_id;
    uint8_t               provider;
    unsigned char         key[NANGO_KEY_LEN];
    unsigned char         data[NANGO_MEMO_MAX];
} nango_memo_entry_t;

typedef struct {
    uint32_t              hash;
    uint32_t              entry;        /* its number, 0: none yet */
} nango_memo_place_t;


struct nango_memo_s {
    uint64_t              generation;   /* of the store that it is of */
    uint64_t              txnid;        /* of the state, 0: it knows nothing */
    uint64_t              applied;

    uint64_t              version;
    uint64_t              forgotten;    /* what is older is not known */
    uint64_t             *changed;      /* by owner */

    size_t                mask;         /* of sets */
    unsigned              turn;         /* whose place is taken next */
    nango_memo_place_t   *places;
    nango_memo_entry_t   *entries;      /* as many as places */
    uint32_t              used;
};


static int nango_memo_follow(nango_memo_t *memo, nango_reader_t *reader);
static int nango_memo_applied(nango_reader_t *reader);
static void nango_memo_changed(void *data,
    const unsigned char key[NANGO_KEY_LEN]);
static size_t nango_memo_owner(const unsigned char key[NANGO_KEY_LEN]);
static nango_memo_place_t *nango_memo_set(const nango_memo_t *memo,
    uint32_t hash);
static nango_memo_entry_t *nango_memo_known(const nango_memo_t *memo,
    const nango_memo_place_t *place);
static int nango_memo_is(const nango_memo_entry_t *entry,
    nango_str_t question);


nango_memo_t *
nango_memo_create(size_t entries)
{
    nango_memo_t  *memo;

    memo = calloc(1, sizeof(nango_memo_t));
    if (memo == NULL) {
        return NULL;
    }

    memo->mask = entries / NANGO_MEMO_WAYS - 1;

    /* Of zeros that are not written to the system gives none. */

    memo->changed = calloc(NANGO_MEMO_OWNERS, sizeof(uint64_t));
    memo->places = calloc(entries, sizeof(nango_memo_place_t));
    memo->entries = calloc(entries, sizeof(nango_memo_entry_t));

    if (memo->changed == NULL || memo->places == NULL
        || memo->entries == NULL)
    {
        nango_memo_free(memo);
        return NULL;
    }

    return memo;
}


void
nango_memo_free(nango_memo_t *memo)
{
    if (memo == NULL) {
        return;
    }

    free(memo->changed);
    free(memo->places);
    free(memo->entries);
    free(memo);
}


int
nango_memo_find(nango_memo_t *memo, nango_reader_t *reader,
    nango_str_t question, uint32_t hash, nango_memo_answer_t *answer)
{
    size_t               i;
    nango_memo_entry_t  *entry;
    nango_memo_place_t  *set;

    if (!nango_memo_follow(memo, reader)) {
        return 0;
    }

    set = nango_memo_set(memo, hash);

    for (i = 0; i < NANGO_MEMO_WAYS; i++) {

        if (set[i].hash != hash) {
            continue;
        }

        entry = nango_memo_known(memo, &set[i]);

        if (entry == NULL || !nango_memo_is(entry, question)) {
            continue;
        }

        answer->status = entry->status;
        memcpy(answer->key, entry->key, NANGO_KEY_LEN);

        answer->connection_id = nango_str(entry->connection_id
                                          ? entry->data + entry->question
                                          : NULL,
                                          entry->connection_id);
        answer->provider = nango_str(entry->provider
                                     ? entry->data + entry->question
                                       + entry->connection_id
                                     : NULL,
                                     entry->provider);
        return 1;
    }

    return 0;
}


void
nango_memo_keep(nango_memo_t *memo, nango_reader_t *reader,
    nango_str_t question, uint32_t hash,
    const unsigned char owner[NANGO_KEY_LEN],
    const nango_memo_answer_t *answer)
{
    size_t               i;
    unsigned char       *p;
    nango_memo_entry_t  *entry;
    nango_memo_place_t  *set;

    if (memo->txnid != nango_reader_state_txnid(reader)
        || question.len > NANGO_MEMO_MAX
        || answer->connection_id.len > NANGO_MEMO_MAX - question.len
        || answer->provider.len > NANGO_MEMO_MAX - question.len
                                  - answer->connection_id.len)
    {
        return;
    }

    /* In place of what is not known any more, or of each in turn. */

    set = nango_memo_set(memo, hash);

    for (i = 0; i < NANGO_MEMO_WAYS; i++) {
        if (nango_memo_known(memo, &set[i]) == NULL) {
            break;
        }
    }

    if (i == NANGO_MEMO_WAYS) {
        i = memo->turn++ % NANGO_MEMO_WAYS;
    }

    if (set[i].entry == 0) {
        set[i].entry = ++memo->used;
    }

    set[i].hash = hash;

    entry = &memo->entries[set[i].entry - 1];

    entry->version = memo->version;
    entry->owner = (uint16_t) nango_memo_owner(owner);
    entry->status = (uint8_t) answer->status;
    entry->question = (uint8_t) question.len;
    entry->connection_id = (uint8_t) answer->connection_id.len;
    entry->provider = (uint8_t) answer->provider.len;
    memcpy(entry->key, answer->key, NANGO_KEY_LEN);

    p = entry->data;

    memcpy(p, question.data, question.len);
    p += question.len;

    if (answer->connection_id.len) {
        memcpy(p, answer->connection_id.data, answer->connection_id.len);
        p += answer->connection_id.len;
    }

    if (answer->provider.len) {
        memcpy(p, answer->provider.data, answer->provider.len);
    }
}


/* To where the snapshot is.  0: it cannot, and knows nothing. */

static int
nango_memo_follow(nango_memo_t *memo, nango_reader_t *reader)
{
    int       rc;
    uint64_t  txnid, generation;

    txnid = nango_reader_state_txnid(reader);
    generation = reader->store->generation;

    if (txnid == memo->txnid && generation == memo->generation) {
        return 1;
    }

    memo->version++;

    rc = nango_memo_applied(reader);

    /* A state that is an older one again is far behind, in unsigned terms. */

    if (rc == 1 && memo->txnid != 0 && generation == memo->generation
        && reader->applied - memo->applied <= NANGO_MEMO_FOLLOW)
    {
        rc = nango_reader_changes(reader, memo->applied, nango_memo_changed,
                                  memo, NULL);

        if (rc == 1) {
            memo->txnid = txnid;
            memo->applied = reader->applied;
            return 1;
        }

        rc = (rc == 0);
    }

    /* It begins anew: another store, or nobody knows what has changed. */

    memo->forgotten = memo->version;
    memo->generation = generation;
    memo->applied = reader->applied;
    memo->txnid = rc ? txnid : 0;

    return rc;
}


/* 1, or 0: it cannot be read, as whoever reads more will say. */

static int
nango_memo_applied(nango_reader_t *reader)
{
    int             rc;
    nango_guard_t   guard;
    nango_store_t  *store;

    store = reader->store;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_meta_u64(reader->state, store->state_meta, "applied",
                            &reader->applied);

        if (rc != 0) {
            (void) nango_store_error(store, NULL, rc, "mdb_get()", "state");
        }

    } else {
        (void) nango_store_fault(store, &guard, -1, NULL);
        rc = -1;
    }

    nango_guard_end(&guard);

    return rc == 0;
}


static void
nango_memo_changed(void *data, const unsigned char key[NANGO_KEY_LEN])
{
    nango_memo_t *memo = data;

    memo->changed[nango_memo_owner(key)] = memo->version;
}


/* Keys are hashes: any two bytes of them are as good as others. */

static size_t
nango_memo_owner(const unsigned char key[NANGO_KEY_LEN])
{
    return (size_t) key[0] | (size_t) key[1] << 8;
}


static nango_memo_place_t *
nango_memo_set(const nango_memo_t *memo, uint32_t hash)
{
    return &memo->places[(hash & memo->mask) * NANGO_MEMO_WAYS];
}


/* NULL: nothing, or nothing that is still so. */

static nango_memo_entry_t *
nango_memo_known(const nango_memo_t *memo, const nango_memo_place_t *place)
{
    nango_memo_entry_t  *entry;

    if (place->entry == 0) {
        return NULL;
    }

    entry = &memo->entries[place->entry - 1];

    return (entry->version >= memo->forgotten
            && entry->version >= memo->changed[entry->owner]) ? entry : NULL;
}


static int
nango_memo_is(const nango_memo_entry_t *entry, nango_str_t question)
{
    return entry->question == question.len
           && memcmp(entry->data, question.data, question.len) == 0;
}
