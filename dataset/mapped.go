package dataset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	flatbuffers "github.com/google/flatbuffers/go"
)

// Arrow's Go reader copies every buffer of a batch. What follows finds the buffers of an uncompressed batch where they
// lie in a mapped file, by the format's own tables (format/File.fbs, Message.fbs). It panics where an offset leads out of
// the file; callers recover.

// Slots of the flatbuffer tables (4 + 2 × field number) and values of Arrow's enums.
const (
	footerBatches = 10

	messageHeaderType = 6
	messageHeader     = 8

	batchLength      = 4
	batchNodes       = 6
	batchBuffers     = 8
	batchCompression = 10

	headerRecordBatch = 3 // MessageHeader.RecordBatch

	arrowMagic = "ARROW1"
	blockSize  = 24 // struct Block {offset: long; metaDataLength: int; bodyLength: long}
	pairSize   = 16 // struct FieldNode {length, null_count: long} and Buffer {offset, length: long}
)

// mappedBatch returns the rows and buffers of the i-th record batch of an Arrow file with nodes field nodes, without
// copying. Nulls and compression are errors.
func mappedBatch(data []byte, i, nodes int) (rows int, buffers [][]byte, err error) {
	block, ok := vector(footerOf(data), footerBatches, i, blockSize)
	if !ok {
		return 0, nil, errors.New("no such record batch")
	}
	offset := binary.LittleEndian.Uint64(block)
	metaLen := uint64(binary.LittleEndian.Uint32(block[8:]))
	message := data[offset : offset+metaLen]
	if binary.LittleEndian.Uint32(message) != 0xffffffff {
		return 0, nil, errors.New("a message of the format before Arrow 0.15")
	}
	body := data[offset+metaLen:]
	body = body[:binary.LittleEndian.Uint64(block[16:])]

	header, err := recordBatch(rootTable(message[8:]))
	if err != nil {
		return 0, nil, err
	}
	if o := header.Offset(batchLength); o != 0 {
		rows = int(header.GetInt64(header.Pos + flatbuffers.UOffsetT(o)))
	}
	for n := range nodes {
		node, ok := vector(header, batchNodes, n, pairSize)
		if !ok || binary.LittleEndian.Uint64(node[8:]) != 0 {
			return 0, nil, errors.New("a column is missing or has nulls")
		}
	}
	for n := range 2 * nodes { // each column and each list has validity and values or offsets
		b, ok := vector(header, batchBuffers, n, pairSize)
		if !ok {
			return 0, nil, errors.New("a buffer is missing")
		}
		from, n := binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		buffer := body[from : from+n : from+n]
		if n > 0 && uintptr(unsafe.Pointer(&buffer[0]))%8 != 0 {
			return 0, nil, errors.New("a buffer is not aligned to 8 bytes")
		}
		buffers = append(buffers, buffer)
	}
	return rows, buffers, nil
}

// footerOf finds the footer table: it lies before its length and the magic at the end.
func footerOf(data []byte) flatbuffers.Table {
	end := len(data) - len(arrowMagic) - 4
	size := int(binary.LittleEndian.Uint32(data[end:]))
	return rootTable(data[end-size : end])
}

func rootTable(b []byte) flatbuffers.Table {
	return flatbuffers.Table{Bytes: b, Pos: flatbuffers.GetUOffsetT(b)}
}

// recordBatch is the header of a message that is an uncompressed record batch.
func recordBatch(message flatbuffers.Table) (t flatbuffers.Table, err error) {
	kind := message.Offset(messageHeaderType)
	if kind == 0 || message.GetByte(message.Pos+flatbuffers.UOffsetT(kind)) != headerRecordBatch {
		return t, errors.New("not a record batch")
	}
	message.Union(&t, flatbuffers.UOffsetT(message.Offset(messageHeader)))
	if t.Offset(batchCompression) != 0 {
		return t, fmt.Errorf("the batch is compressed")
	}
	return t, nil
}

// vector returns the n-th struct of a vector of structs in a slot of a table.
func vector(t flatbuffers.Table, slot flatbuffers.VOffsetT, n, size int) ([]byte, bool) {
	o := flatbuffers.UOffsetT(t.Offset(slot))
	if o == 0 || n >= t.VectorLen(o) {
		return nil, false
	}
	at := int(t.Vector(o)) + n*size
	return t.Bytes[at : at+size], true
}
