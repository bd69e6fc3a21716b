module faas.local/main

go 1.21
