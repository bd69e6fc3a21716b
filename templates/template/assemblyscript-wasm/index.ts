import { Request } from "./faas";
import { handle } from "./function/handler";

handle(new Request()).send();
