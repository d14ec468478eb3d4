// Peer is what lies on both sides of a router that is measured: workers of fixed service time, and clients.
//
// It is in Go, and knows of the messages only the bytes that it needs: what it took itself of two cores would be
// missing to the router, and count as the router's.
//
//	peer workers COUNT SECONDS IMAGE_BYTES SLOTS PLACEMENT
//	peer load ADDRESS[,ADDRESS...] CLIENTS RATE SECONDS EVENTS
//
// Workers tell their addresses as a line of JSON and serve until their standard input ends; load tells its figures.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// mostBytes of a message, either way.
const mostBytes = 64 << 20

// raw passes messages on as the bytes that they are.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(message any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*message.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, message any) error {
	*message.(*[]byte) = data.Materialize()
	return nil
}

var _ encoding.CodecV2 = raw{}

func number(name, text string) float64 {
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || value < 0 {
		fail(fmt.Errorf("%s: %q is not allowed: a number, at least 0", name, text))
	}
	return value
}

func tell(what any) {
	line, err := json.Marshal(what)
	if err != nil {
		fail(err)
	}
	fmt.Println(string(line))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "peer:", err)
	os.Exit(2)
}

func main() {
	given := os.Args[1:]
	switch {
	case len(given) == 6 && given[0] == "workers":
		seconds := number("SECONDS", given[2])
		size, slots := int(number("IMAGE_BYTES", given[3])), int(number("SLOTS", given[4]))
		serve(int(number("COUNT", given[1])), seconds, size, slots, given[5])
	case len(given) == 6 && given[0] == "load":
		clients, rate, seconds := int(number("CLIENTS", given[2])), number("RATE", given[3]), number("SECONDS", given[4])
		load(given[1], clients, rate, seconds, number("EVENTS", given[5]) == 0)
	default:
		fail(fmt.Errorf("workers COUNT SECONDS IMAGE_BYTES SLOTS PLACEMENT, or load ADDRESS[,ADDRESS...] CLIENTS RATE SECONDS EVENTS"))
	}
}
