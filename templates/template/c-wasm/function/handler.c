#include "faas.h"

#include <stdio.h>

/* Greets the person whom the query names, with the greeting from a file in the image. */
int handle(void) {
  char greeting[64] = "";
  size_t size;

  if (faas_path()[0] && faas_path()[1]) {
    faas_status(404);
    faas_printf("nothing is at %s\n", faas_path());
    return 0;
  }

  FILE *file = fopen("/greeting.txt", "r");
  if (!file || !fgets(greeting, sizeof greeting, file)) {
    perror("/greeting.txt");
    return 1;
  }

  const char *name = faas_query_parameter("name");
  char *body = faas_read_all(1 << 20, &size);
  if (!body) {
    faas_status(413);
    faas_printf("at most 1 MiB, please\n");
    return 0;
  }
  faas_printf("%s %s! You sent %zu bytes.\n", greeting, name ? name : "stranger", size);
  return 0;
}
