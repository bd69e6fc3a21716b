package function

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func TestGreets(t *testing.T) {
	recorder := httptest.NewRecorder()
	Handle(recorder, httptest.NewRequest("POST", "/?name=Ada", strings.NewReader("abc")))
	if got, want := recorder.Body.String(), "Hello from Go, Ada! You sent 3 bytes.\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestKnowsOnePath(t *testing.T) {
	recorder := httptest.NewRecorder()
	Handle(recorder, httptest.NewRequest("GET", "/elsewhere", nil))
	if recorder.Code != 404 {
		t.Errorf("status %d", recorder.Code)
	}
}
