// Connects the runner and function.Handle: reads the request from the environment and standard input,
// and writes the response to standard output with a CGI head (the runner's wasm_response=cgi).
package main

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"faas.local/function"
)

// request builds the request from the variables that the runner sets.
func request() *http.Request {
	header := http.Header{}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		name, found := strings.CutPrefix(name, "Http_")
		if !found || name == "Method" || name == "Path" || name == "Query" {
			continue
		}
		header.Add(strings.ReplaceAll(name, "_", "-"), value)
	}
	length, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64)
	if err != nil {
		length = -1
	}
	target := &url.URL{Path: os.Getenv("Http_Path"), RawQuery: os.Getenv("Http_Query")}
	return &http.Request{
		Method:        os.Getenv("Http_Method"),
		URL:           target,
		RequestURI:    target.RequestURI(),
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Host:          header.Get("Host"),
		ContentLength: length,
		Body:          io.NopCloser(os.Stdin),
	}
}

// response writes its head before the first byte of the body.
type response struct {
	header http.Header
	output *bufio.Writer
	begun  bool
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.begun || status < 200 {
		return
	}
	r.begun = true
	if r.header.Get("Content-Type") == "" && r.header.Get("Location") == "" {
		r.header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	fmt.Fprintf(r.output, "Status: %d\r\n", status)
	// Header.Write replaces line ends in values with spaces.
	if err := r.header.Write(r.output); err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(r.output, "\r\n")
}

func (r *response) Write(bytes []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.output.Write(bytes)
}

// Flush sends buffered output, for streaming responses.
func (r *response) Flush() {
	if err := r.output.Flush(); err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	response := &response{header: http.Header{}, output: bufio.NewWriter(os.Stdout)}
	function.Handle(response, request())
	response.WriteHeader(http.StatusOK)
	response.Flush()
}
