/*
 * Copyright (C) nginx-nango authors
 *
 * One event in the log, as bytes.  The layout is in docs/internals.md; its
 * first byte is its version, and a version that this code does not know is
 * passed over, never rewritten.
 */

#ifndef _NANGO_RECORD_H_INCLUDED_
#define _NANGO_RECORD_H_INCLUDED_


#include "nango_event.h"
#include "nango_signature.h"


#define NANGO_RECORD_VERSION     1
#define NANGO_RECORD_HEADERS_MAX (16 * 1024)

/* What a record may hold of a body; the longest are files in PATH/bodies. */
#define NANGO_RECORD_BODY_MAX    (256 * 1024)

/* A body file's name: 32 hex digits. */
#define NANGO_BODY_NAME_LEN      32


typedef enum {
    NANGO_SOURCE_NANGO = 0,
    NANGO_SOURCE_REPAIR = 1,
    NANGO_SOURCE_EDGE = 2
} nango_source_e;


typedef struct {
    nango_source_e        source;
    nango_type_e          type;
    nango_op_e            operation;
    nango_success_e       success;
    uint64_t              received_at;      /* ms since 1970 */
    unsigned char         hmac[NANGO_HMAC_LEN];
    nango_str_t           environment;
    nango_str_t           type_name;
    nango_str_t           integration;
    nango_str_t           connection_id;

    /* "Name: value\r\n" each, as received, hop-by-hop ones left out. */
    nango_str_t           headers;

    /* The body, or (body_file != 0) the name of its file. */
    nango_str_t           body;
    int                   body_file;
    uint64_t              body_len;         /* of the body itself */
} nango_record_t;


/*
 * How long rec will be, and rec into dst, which has that many bytes.  Strings
 * over the layout's limits (65535 bytes; headers NANGO_RECORD_HEADERS_MAX;
 * body NANGO_RECORD_BODY_MAX) make nango_record_size() return 0.
 *
 * With rec->body.data == NULL and a length, encoding leaves the body's bytes
 * as they are for the caller to fill: they are the last ones of the record.
 */
size_t nango_record_size(const nango_record_t *rec);
void nango_record_encode(const nango_record_t *rec, unsigned char *dst);

/*
 * 0; -1 if the bytes are no record (lengths that do not add up); 1 if the
 * version is unknown, and then rec is zero.  Strings point into data.  Reads
 * whatever it is given: the bytes come from a disk.
 */
int nango_record_decode(nango_record_t *rec, nango_str_t data);


#endif /* _NANGO_RECORD_H_INCLUDED_ */
