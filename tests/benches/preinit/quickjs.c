// A JavaScript function on QuickJS: the initializer reads, parses and runs the script, and a request
// only calls its `handle`.
//
// Without `--preinit`, a request does both, so that the benchmark can measure the difference.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "quickjs.h"

static JSRuntime *runtime;
static JSContext *context;

static char *read_all(int file, size_t *size) {
  size_t room = 1 << 16;
  char *text = malloc(room + 1);
  ssize_t count;
  *size = 0;
  while (text && (count = read(file, text + *size, room - *size)) > 0) {
    *size += count;
    if (*size == room)
      text = realloc(text, (room *= 2) + 1);
  }
  if (text)
    text[*size] = 0;
  return text;
}

static void fail(void) {
  JSValue exception = JS_GetException(context);
  const char *text = JS_ToCString(context, exception);
  fprintf(stderr, "%s\n", text ? text : "exception");
  exit(1);
}

static void start(int file) {
  size_t size;
  char *script = read_all(file, &size);
  runtime = JS_NewRuntime();
  context = JS_NewContext(runtime);
  // The guest's stack is limited separately.
  JS_SetMaxStackSize(runtime, 0);
  JSValue result = JS_Eval(context, script, size, "script", JS_EVAL_TYPE_GLOBAL);
  if (JS_IsException(result))
    fail();
  JS_FreeValue(context, result);
  free(script);
}

__attribute__((export_name("wizer.initialize"))) void initialize(void) { start(0); }

int main(int count, char **arguments) {
  size_t size;
  if (!context) {
    int script = open(count > 1 ? arguments[1] : "/script.js", O_RDONLY);
    if (script < 0)
      return 2;
    start(script);
    close(script);
  }
  char *request = read_all(0, &size);
  JSValue global = JS_GetGlobalObject(context);
  JSValue handle = JS_GetPropertyStr(context, global, "handle");
  JSValue argument = JS_NewStringLen(context, request, size);
  JSValue result = JS_Call(context, handle, global, 1, &argument);
  if (JS_IsException(result))
    fail();
  const char *text = JS_ToCString(context, result);
  puts(text);
  return 0;
}
