/*
 * Copyright (C) nginx-nango authors
 *
 * What lookups have found, kept for the next ones: in a store of a million
 * connections most of a lookup's time goes into walking from page to page.
 *
 * It is asked in a snapshot and answers what the snapshot would.  When the
 * state has gone on since it was asked last, it reads there which owners are
 * concerned (nango_reader_changes()) and forgets what it knew of them, or
 * everything where nobody can say.  So there is no time for which an answer is
 * old, and nothing to be told by anybody.
 *
 * Of a fixed number of entries, of which memory is used as they come; new ones
 * take the place of others.  What does not fit into an entry is not kept.
 */

#ifndef _NANGO_MEMO_H_INCLUDED_
#define _NANGO_MEMO_H_INCLUDED_


#include "nango_state.h"


/* A question and its answer's strings together have at most so many bytes. */
#define NANGO_MEMO_MAX  226


typedef struct nango_memo_s  nango_memo_t;

typedef struct {
    nango_status_e        status;       /* NONE: there is no connection */
    unsigned char         key[NANGO_KEY_LEN];
    nango_str_t           connection_id;
    nango_str_t           provider;
} nango_memo_answer_t;


/* For one thread.  entries: a power of 2, 4 at least.  NULL: no memory. */
nango_memo_t *nango_memo_create(size_t entries);
void nango_memo_free(nango_memo_t *memo);

/*
 * In a snapshot of a reader, the same one each time.  question: bytes that say
 * all that the answer depends on, the environment and the owner's tags among
 * it.  hash: any function of them; a bad one costs time only, as they are
 * compared.
 *
 * 1: *answer, whose strings are valid until the memo is used again; 0: not
 * known.
 */
int nango_memo_find(nango_memo_t *memo, nango_reader_t *reader,
    nango_str_t question, uint32_t hash, nango_memo_answer_t *answer);

/*
 * In the snapshot of the nango_memo_find() that did not know it: what has been
 * found there.  owner: nango_owner_key() of one of the owner's tags, which is
 * among those of every change that could make it another answer.
 */
void nango_memo_keep(nango_memo_t *memo, nango_reader_t *reader,
    nango_str_t question, uint32_t hash,
    const unsigned char owner[NANGO_KEY_LEN],
    const nango_memo_answer_t *answer);


#endif /* _NANGO_MEMO_H_INCLUDED_ */
