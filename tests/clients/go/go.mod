module exeat.test/client

go 1.18
