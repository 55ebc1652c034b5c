/*
 * Copyright (C) nginx-nango authors
 *
 * Events as others may see them: the log after a position, with the
 * connection of each event as the state has it now, which says whose it is.
 *
 * Whose an event is follows from its connection at the time of reading: a
 * connection that was given away takes its events along, one that was deleted
 * keeps its tags.  An event of no connection belongs to nobody.
 */

#ifndef _NANGO_EVENTS_H_INCLUDED_
#define _NANGO_EVENTS_H_INCLUDED_


#include "nango_record.h"
#include "nango_state.h"


/*
 * Valid during the visit only.  record has no headers; its body, if it is no
 * file, is whole.
 */
typedef struct {
    uint64_t                   sequence;
    const nango_record_t      *record;
    const nango_connection_t  *connection;  /* NULL: of none that is known;
                                               tags it had then and has now */
    const unsigned char       *key;         /* NULL: it names none */
} nango_logged_t;

/* What is wanted.  Tag names in lower case. */
typedef struct {
    nango_str_t                environment; /* absent: any */
    nango_str_t                type;        /* absent: any */
    const nango_tag_t         *owner;
    size_t                     nowner;      /* 0: everybody's */

    /* Events looked at, bytes read of them; at least one event is. */
    size_t                     max_events;
    size_t                     max_bytes;
} nango_wanted_t;


/*
 * In a snapshot: what is applied after *position and wanted, in order.
 * Connections are looked up for events of the environment and type.  visit
 * returns 0: go on; 1: stop after this one; 2: stop before it.  *position is
 * set to the last sequence that was looked at.  1: there may be more; 0: that
 * was all, and *position is what is applied; -1 and *err.  What cannot be
 * read is passed over.
 */
int nango_reader_events(nango_reader_t *reader, const nango_wanted_t *wanted,
    uint64_t *position, int (*visit)(void *data, const nango_logged_t *event),
    void *data, nango_error_t *err);

/*
 * In a snapshot: the first sequence from which on nothing of the environment
 * has been pruned; if the log has none, the one after all that were given out.
 * What is owed to a subscriber may be there before it, with gaps.  0, or -1
 * and *err.
 */
int nango_reader_first(nango_reader_t *reader, nango_str_t environment,
    uint64_t *first, nango_error_t *err);

/* "auth"; where the event did not say, what we call it. */
nango_str_t nango_logged_type(const nango_record_t *record);

/* Whether the tags include all of the owner's. */
int nango_tags_include(const nango_tag_t *tags, size_t ntags,
    const nango_tag_t *owner, size_t nowner);


#endif /* _NANGO_EVENTS_H_INCLUDED_ */
