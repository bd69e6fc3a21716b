/* The API for functions in C: one request in, one response out.
 *
 * Each request runs in a fresh instance, which shares no memory with earlier or later requests. So a
 * function need not free anything and cannot keep state, and exit() and abort() end only this request
 * (with status 500 unless the exit code is 0). */
#ifndef FAAS_H
#define FAAS_H

#include <stddef.h>

/* The request's method, for example "POST". */
const char *faas_method(void);

/* The request's path, percent-decoded, for example "/resize". */
const char *faas_path(void);

/* The request's query as the client sent it, without the question mark; "" if there is none. */
const char *faas_query(void);

/* The value of a header, or NULL. Names are case-insensitive. */
const char *faas_request_header(const char *name);

/* The percent-decoded value of a query parameter, or NULL. A parameter without `=` is "". */
char *faas_query_parameter(const char *name);

/* Reads up to `size` bytes of the body. Returns the number of bytes read; 0 at the end. */
size_t faas_read(void *buffer, size_t size);

/* Reads the whole body and adds a zero byte. Returns NULL and sets `*size` to 0 if the body is longer
 * than `limit` or there is not enough memory. */
char *faas_read_all(size_t limit, size_t *size);

/* Sets the status of the response; the default is 200. Call it before the first byte of the body. */
void faas_status(int status);

/* Adds a header; the default Content-Type is text/plain. Call it before the first byte of the body.
 * Names and values with control characters end the request with status 500, because they could start
 * another header. */
void faas_header(const char *name, const char *value);

/* Writes part of the body. */
void faas_write(const void *bytes, size_t size);

/* Writes part of the body, like printf. */
__attribute__((format(printf, 1, 2))) void faas_printf(const char *format, ...);

/* The function, which handler.c defines. A result other than 0 is a failure: the response is status 500,
 * or is visibly cut off if part of it has been sent. */
int handle(void);

#endif
