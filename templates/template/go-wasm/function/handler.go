package function

import (
	"fmt"
	"io"
	"net/http"
)

// Handle is the function. Each request runs in a fresh instance. A panic is logged, and the response is status 500.
func Handle(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/" && r.URL.Path != "" {
		http.Error(w, "nothing is at "+r.URL.Path, http.StatusNotFound)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, "the body cannot be read", http.StatusBadRequest)
		return
	}
	name := r.URL.Query().Get("name")
	if name == "" {
		name = "stranger"
	}
	fmt.Fprintf(w, "Hello from Go, %s! You sent %d bytes.\n", name, len(body))
}
