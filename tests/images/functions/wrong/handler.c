#include "faas.h"

int handle(void) {
  faas_printf("right\n");
  return 0;
}
