/* What a function in C is written with: one request in, one response out.
 *
 * Each request gets a process of its own, in effect: a fresh instance whose memory nobody has used
 * before and nobody will see afterwards. So there is nothing to free and no state to keep, and
 * exit() and abort() end this request alone (with status 500 unless the code is 0). */
#ifndef FAAS_H
#define FAAS_H

#include <stddef.h>

/* The request's method, for example "POST". */
const char *faas_method(void);

/* Its path, percent-decoded, for example "/resize". */
const char *faas_path(void);

/* Its query without the question mark, as it was sent; "" if there is none. */
const char *faas_query(void);

/* The value of a header, or NULL. Case does not matter in the name. */
const char *faas_request_header(const char *name);

/* The percent-decoded value of a parameter of the query, or NULL. A parameter without `=` is "". */
char *faas_query_parameter(const char *name);

/* Reads up to `size` bytes of the body. Returns how many there were; 0 at the end. */
size_t faas_read(void *buffer, size_t size);

/* Reads all of the body, with a zero after its last byte. Returns NULL, and `*size` 0, if it is
 * longer than `limit` or there is no memory for it. */
char *faas_read_all(size_t limit, size_t *size);

/* Sets the status of the response; 200 without it. Before the first byte of the body. */
void faas_status(int status);

/* Adds a header; Content-Type is text/plain without one. Before the first byte of the body. Names
 * and values with control characters, which could begin a header of their own, end the request with
 * status 500. */
void faas_header(const char *name, const char *value);

/* Writes a part of the body. */
void faas_write(const void *bytes, size_t size);

/* Writes a part of the body, like printf. */
__attribute__((format(printf, 1, 2))) void faas_printf(const char *format, ...);

/* The function: handler.c defines it. Returning something else than 0 is a failure: status 500, or
 * a response that is visibly cut if a part of it has been sent. */
int handle(void);

#endif
