#include "faas.h"

#include <unistd.h>

/* Still runs when the signal to end the runner arrives. */
int handle(void) {
  sleep(3);
  faas_printf("done\n");
  return 0;
}
