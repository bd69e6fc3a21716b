module faas.local/function

go 1.21
