package main

import (
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// message appends a field of bytes: text, a message, or packed numbers.
func message(to []byte, number protowire.Number, content []byte) []byte {
	to = protowire.AppendTag(to, number, protowire.BytesType)
	return protowire.AppendBytes(to, content)
}

func count(to []byte, number protowire.Number, value uint64) []byte {
	to = protowire.AppendTag(to, number, protowire.VarintType)
	return protowire.AppendVarint(to, value)
}

func double(to []byte, number protowire.Number, value float64) []byte {
	to = protowire.AppendTag(to, number, protowire.Fixed64Type)
	return protowire.AppendFixed64(to, math.Float64bits(value))
}

// fields gives the bytes of a repeated field of messages or texts, as far as the message is well-formed.
func fields(from []byte, wanted protowire.Number) [][]byte {
	var found [][]byte
	each(from, func(number protowire.Number, kind protowire.Type, value []byte) {
		if number == wanted && kind == protowire.BytesType {
			if content, n := protowire.ConsumeBytes(value); n >= 0 {
				found = append(found, content)
			}
		}
	})
	return found
}

// field gives the bytes of a message's or a text's field; nil where it is absent.
func field(from []byte, wanted protowire.Number) []byte {
	if found := fields(from, wanted); len(found) > 0 {
		return found[len(found)-1]
	}
	return nil
}

// varint gives a field of a whole number; 0 where it is absent.
func varint(from []byte, wanted protowire.Number) uint64 {
	var found uint64
	each(from, func(number protowire.Number, kind protowire.Type, value []byte) {
		if number == wanted && kind == protowire.VarintType {
			found, _ = protowire.ConsumeVarint(value)
		}
	})
	return found
}

func each(from []byte, do func(protowire.Number, protowire.Type, []byte)) {
	for len(from) > 0 {
		number, kind, n := protowire.ConsumeTag(from)
		if n < 0 {
			return
		}
		from = from[n:]
		if n = protowire.ConsumeFieldValue(number, kind, from); n < 0 {
			return
		}
		do(number, kind, from[:n])
		from = from[n:]
	}
}
