/* Implements faas.h on a command's environment, standard input and standard output, with a CGI head
 * (the runner's wasm_response=cgi). */
#include "faas.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct {
  int status;
  int has_content_type;
  /* The head has been written and can no longer change. */
  int begun;
} response = {.status = 200};

static void fail(const char *message) {
  fprintf(stderr, "error: %s\n", message);
  exit(1);
}

static const char *variable(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

const char *faas_method(void) { return variable("Http_Method"); }

const char *faas_path(void) { return variable("Http_Path"); }

const char *faas_query(void) { return variable("Http_Query"); }

/* Headers are in variables such as Http_Content_Type, with a capital after each hyphen. */
const char *faas_request_header(const char *name) {
  char key[256] = "Http_";
  size_t at = strlen(key);
  int begin = 1;
  for (; *name; name++) {
    if (at + 1 >= sizeof key)
      return NULL;
    unsigned char c = (unsigned char)*name;
    key[at++] = c == '-' ? '_' : (char)(begin ? toupper(c) : tolower(c));
    begin = c == '-';
  }
  key[at] = 0;
  return getenv(key);
}

static int digit(char c) {
  if (c >= '0' && c <= '9')
    return c - '0';
  c = (char)tolower((unsigned char)c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static char *decode(const char *text, size_t size) {
  char *decoded = malloc(size + 1);
  if (!decoded)
    fail("no memory for a parameter of the query");
  size_t at = 0;
  for (size_t i = 0; i < size; i++) {
    if (text[i] == '%' && i + 2 < size && digit(text[i + 1]) >= 0 && digit(text[i + 2]) >= 0) {
      decoded[at++] = (char)(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      decoded[at++] = text[i] == '+' ? ' ' : text[i];
    }
  }
  decoded[at] = 0;
  return decoded;
}

char *faas_query_parameter(const char *name) {
  const char *rest = faas_query();
  while (*rest) {
    size_t size = strcspn(rest, "&");
    const char *equals = memchr(rest, '=', size);
    size_t name_size = equals ? (size_t)(equals - rest) : size;
    char *found = decode(rest, name_size);
    int same = strcmp(found, name) == 0;
    free(found);
    if (same)
      return equals ? decode(equals + 1, size - name_size - 1) : decode("", 0);
    rest += size;
    if (*rest)
      rest++;
  }
  return NULL;
}

size_t faas_read(void *buffer, size_t size) {
  size_t count = fread(buffer, 1, size, stdin);
  if (count < size && ferror(stdin))
    fail("the request's body cannot be read");
  return count;
}

char *faas_read_all(size_t limit, size_t *size) {
  size_t capacity = 4096, used = 0;
  char *body = NULL;
  *size = 0;
  for (;;) {
    if (capacity > limit)
      capacity = limit;
    /* One extra byte, to detect a body that is too long and for the final zero. */
    char *grown = realloc(body, capacity + 1);
    if (!grown) {
      free(body);
      return NULL;
    }
    body = grown;
    used += faas_read(body + used, capacity + 1 - used);
    if (used <= capacity)
      break;
    if (capacity == limit) {
      free(body);
      return NULL;
    }
    capacity = capacity > limit / 2 ? limit : capacity * 2;
  }
  body[used] = 0;
  *size = used;
  return body;
}

void faas_status(int status) {
  if (response.begun)
    fail("faas_status() after the body has begun");
  if (status < 200 || status > 599)
    fail("faas_status() with something that is no status of a response");
  response.status = status;
}

void faas_header(const char *name, const char *value) {
  if (response.begun)
    fail("faas_header() after the body has begun");
  for (const char *c = name; *c; c++)
    if (!isalnum((unsigned char)*c) && !strchr("-_.~!#$%&'*+^`|", *c))
      fail("faas_header() with a name that is none");
  for (const char *c = value; *c; c++)
    if (((unsigned char)*c < ' ' && *c != '\t') || *c == 127)
      fail("faas_header() with a control character in the value");
  if (!*name || strcasecmp(name, "Status") == 0)
    fail("faas_header() with a name that is none");
  if (strcasecmp(name, "Content-Type") == 0)
    response.has_content_type = 1;
  printf("%s: %s\r\n", name, value);
}

static void begin(void) {
  if (response.begun)
    return;
  response.begun = 1;
  if (!response.has_content_type)
    printf("Content-Type: text/plain; charset=utf-8\r\n");
  printf("Status: %d\r\n\r\n", response.status);
}

void faas_write(const void *bytes, size_t size) {
  begin();
  if (fwrite(bytes, 1, size, stdout) != size)
    fail("the response cannot be written");
}

void faas_printf(const char *format, ...) {
  va_list arguments;
  begin();
  va_start(arguments, format);
  int written = vprintf(format, arguments);
  va_end(arguments);
  if (written < 0)
    fail("the response cannot be written");
}

int main(void) {
  int code = handle();
  if (code != 0)
    return code;
  begin();
  return fflush(stdout) == 0 ? 0 : 1;
}
