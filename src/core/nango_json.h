/*
 * Copyright (C) nginx-nango authors
 *
 * Reading JSON that others wrote.  A scanner of our own finds the members of
 * an object as ranges of bytes, without recursion, without allocation and in
 * one pass; jansson, if anything, only ever sees the small ranges that are
 * wanted.  Why not jansson alone: it refuses JSON that Node emits (a lone
 * surrogate, \u0000, integers of more than 64 bits), and 75 MB of it cost 7
 * seconds and 3.4 GB.
 *
 * The functions here may be called on any thread.
 */

#ifndef _NANGO_JSON_H_INCLUDED_
#define _NANGO_JSON_H_INCLUDED_


#include "nango_str.h"

#include <jansson.h>


/*
 * Containers may nest this deep.  The scanner keeps one bit a level; deeper
 * text is not understood, which costs an event its meaning but never its
 * storage.
 */
#define NANGO_JSON_MAX_DEPTH   1024

/* What jansson may be given in one piece. */
#define NANGO_JSON_MAX_VALUE   (256 * 1024)


/*
 * A member that the caller wants.  The scanner sets value to the bytes of the
 * member's value, from its first byte to its last, white space around it left
 * out, or to an absent string.  Of members with the same name the last one
 * counts, as in JSON.parse().  Names are compared after decoding escapes.
 */
typedef struct {
    nango_str_t           name;
    nango_str_t           value;
} nango_json_member_t;

typedef enum {
    NANGO_JSON_INVALID = 0,     /* no JSON, or nested too deep */
    NANGO_JSON_OTHER,           /* JSON, but not an object */
    NANGO_JSON_OBJECT
} nango_json_kind_e;


/*
 * Scans all of text, which must be one JSON value (RFC 8259) and nothing else
 * but white space.  UTF-8 inside of strings is not checked, surrogates are not
 * paired.  On anything but NANGO_JSON_OBJECT all values are absent.  The
 * values point into text.
 */
nango_json_kind_e nango_json_members(nango_str_t text,
    nango_json_member_t *members, size_t n);

/*
 * Whether text, in the sense above an object, has members besides the n named
 * ones: 1, 0; -1 if it is not an object.  For interfaces that refuse unknown
 * fields.  *extra, if not NULL, is set to the raw name (in its quotes).
 */
int nango_json_extra(nango_str_t text, const nango_json_member_t *members,
    size_t n, nango_str_t *extra);

/*
 * Walks the members of an object, or the elements of an array, in their
 * order.  nango_json_walk() returns 1 if text begins as one, else 0.
 * nango_json_next() returns 1 and the next value (and name, raw, in its
 * quotes; absent in an array), 0 when all of text has been seen and was good,
 * -1 when it is no JSON or nested too deep: what came before does not count
 * then.  Once it has returned 0 or -1 the walk is over.  Names that occur
 * twice are given twice.
 */
typedef struct {
    const unsigned char  *pos;
    const unsigned char  *end;
    int                   object;
    int                   first;
    uint64_t              stack[NANGO_JSON_MAX_DEPTH / 64];
} nango_json_walk_t;

int nango_json_walk(nango_json_walk_t *w, nango_str_t text);
int nango_json_next(nango_json_walk_t *w, nango_str_t *name,
    nango_str_t *value);

/* What nango_json_string() says of a value. */

typedef enum {
    NANGO_JSON_STRING_OK = 0,
    NANGO_JSON_STRING_CUT,      /* the rest would not fit */
    NANGO_JSON_STRING_BAD       /* no string, or not to be had as UTF-8 */
} nango_json_string_e;

/*
 * Decodes a raw string, in its quotes, into at most size bytes at dst, cut at
 * a character's end, and sets s to them.  Decoding never makes longer:
 * value.len - 2 bytes always do.  BAD, and s absent, for anything that is no
 * string, that holds \u0000, a lone surrogate or bytes that are no UTF-8,
 * also where they lie in the part that is cut off.  Control characters other
 * than \u0000 pass.  s points into dst.
 */
nango_json_string_e nango_json_string(nango_str_t value, unsigned char *dst,
    size_t size, nango_str_t *s);

/*
 * Parses one value, scalars included, with jansson.  NULL if it is longer than
 * NANGO_JSON_MAX_VALUE, if jansson refuses it, or if there is no memory.  The
 * caller owns the reference.  Strings with \u0000 are refused.
 */
json_t *nango_json_load(nango_str_t value);

/* Whether a raw value is the literal, e.g. "true". */
int nango_json_is(nango_str_t value, const char *literal);


#endif /* _NANGO_JSON_H_INCLUDED_ */
