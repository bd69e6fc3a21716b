// The one-time initialization of a JavaScript function: tables, classes, compiled expressions.
const words = [];
for (let number = 0; number < 20000; number++) {
  words.push({ number, name: "word" + number.toString(36), even: number % 2 === 0 });
}
const byName = new Map(words.map((word) => [word.name, word]));

class Route {
  constructor(pattern, answer) {
    this.pattern = new RegExp("^" + pattern + "$");
    this.answer = answer;
  }
}
const routes = [];
for (let number = 0; number < 200; number++) {
  routes.push(new Route("/section" + number + "/([a-z0-9]+)", (name) => byName.get(name)));
}

function handle(request) {
  for (const route of routes) {
    const match = route.pattern.exec(request);
    if (match) return JSON.stringify(route.answer(match[1]));
  }
  return "nothing";
}
