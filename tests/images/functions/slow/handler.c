#include "faas.h"

#include <unistd.h>

/* Takes longer than the signal that ends the runner. */
int handle(void) {
  sleep(3);
  faas_printf("done\n");
  return 0;
}
