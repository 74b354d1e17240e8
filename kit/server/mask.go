package server

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// texts are how the messages begin in which grpc-go, when it refuses a call by itself, repeats what the caller has sent. It is
// that rest which is masked. A test has a caller who is refused for each.
var texts = []string{
	"malformed grpc-timeout: ",
	"malformed binary metadata ",
	"malformed method name: ",
	"invalid gRPC request content-type ",
	"Received a HEADERS frame with :method ",
	"grpc: Decompressor is not installed for grpc-encoding ",
}

// packedTexts are the texts as HPACK has them where a Huffman code makes them shorter, but for the last byte, which what
// follows has a share of.
var packedTexts = func() [][]byte {
	var list [][]byte
	for _, s := range texts {
		packed := hpack.AppendHuffmanString(nil, s)
		list = append(list, packed[:len(packed)-1])
	}
	return list
}()

// answers are what a connection sends, on its way past: where one of the texts ends a call, its rest is put out of sight. All else
// passes as it is. What is not whole yet is held until more comes; grpc-go flushes nothing but whole frames.
type answers struct {
	skip int    // bytes of the payload of a frame that are still to come, and pass
	held []byte // a frame whose header is not whole, or the headers that end a call and are not whole
}

// pass returns what may be sent when p is next: p itself, mostly. It neither changes p nor keeps it.
func (a *answers) pass(p []byte) []byte {
	if len(a.held) > 0 {
		p = append(a.held, p...)
		a.held = nil
	}
	var out []byte // nil while all of p passes
	from := 0      // what of p is not in out
	at := min(a.skip, len(p))
	a.skip -= at
	for at < len(p) {
		end, whole := frameEnd(p, at)
		if !whole {
			a.held = bytes.Clone(p[at:])
			p = p[:at]
			break
		}
		if endsCall(p, at) {
			if end, whole = blockEnd(p, at); !whole {
				a.held = bytes.Clone(p[at:])
				p = p[:at]
				break
			}
			if m := maskHeaders(p[at:end]); m != nil {
				out = append(append(out, p[from:at]...), m...)
				from = end
			}
		}
		if at = end; at > len(p) {
			a.skip, at = at-len(p), len(p)
		}
	}
	if out == nil {
		return p
	}
	return append(out, p[from:]...)
}

// frameEnd returns where the frame at p[at] ends, which may be beyond p; whole is false where its header does.
func frameEnd(p []byte, at int) (end int, whole bool) {
	if len(p)-at < frameHeader {
		return 0, false
	}
	return at + frameHeader + (int(p[at])<<16 | int(p[at+1])<<8 | int(p[at+2])), true
}

// endsCall says whether the frame at p[at] has the last headers of a call, or the first of them. grpc-go neither pads them nor
// gives them a priority.
func endsCall(p []byte, at int) bool {
	const other = http2.FlagHeadersPadded | http2.FlagHeadersPriority
	flags := http2.Flags(p[at+4])
	return http2.FrameType(p[at+3]) == http2.FrameHeaders && flags.Has(http2.FlagHeadersEndStream) && flags&other == 0
}

// blockEnd returns where the block of headers that begins with the frame at p[at] ends; whole is false where that is beyond p.
func blockEnd(p []byte, at int) (end int, whole bool) {
	for {
		end, whole = frameEnd(p, at)
		if !whole || end > len(p) {
			return 0, false
		}
		if http2.Flags(p[at+4]).Has(http2.FlagHeadersEndHeaders) { // as CONTINUATION has it, too
			return end, true
		}
		at = end
	}
}

// maskHeaders returns the frames of a block of headers with what is to be masked in it put out of sight, and nil where nothing is.
func maskHeaders(frames []byte) []byte {
	block := frames[frameHeader:]
	if end, _ := frameEnd(frames, 0); end < len(frames) { // CONTINUATION follows
		block = nil
		for at := 0; at < len(frames); at = end {
			end, _ = frameEnd(frames, at)
			block = append(block, frames[at+frameHeader:end]...)
		}
	}
	if block = maskBlock(block); block == nil {
		return nil
	}
	stream := binary.BigEndian.Uint32(frames[5:])
	var out bytes.Buffer // into which a Framer writes what it is told
	framer := http2.NewFramer(&out, nil)
	first := true
	for part := range slices.Chunk(block, maxFrame) {
		block = block[len(part):]
		if first {
			_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: part, EndStream: true, EndHeaders: len(block) == 0})
		} else {
			_ = framer.WriteContinuation(stream, len(block) == 0, part)
		}
		first = false
	}
	return out.Bytes()
}

// maxFrame is the largest payload that every HTTP/2 peer takes (RFC 9113, section 4.2), in bytes.
const maxFrame = 16 << 10

// maskBlock returns a block of headers (RFC 7541, section 6) with the rest of one of the texts put out of sight, and nil where
// none is in it. A text has its length still: both ends keep the fields of former blocks in a table, whose size is counted
// by their lengths, and when grpc-go gives the same answer again it sends its index there, which has what was sent here.
func maskBlock(block []byte) []byte {
	for at := 0; at < len(block); {
		var prefix byte // bits of the first byte that begin the index
		b := block[at]
		switch {
		case b&0x80 != 0:
			prefix = 7 // a field of the table
		case b&0x40 != 0:
			prefix = 6 // a field that is put into it
		case b&0x20 != 0:
			prefix = 5 // the size of the table
		default:
			prefix = 4 // a field that is not put into it
		}
		index, next, ok := hpackInt(block, at, prefix)
		if !ok {
			return nil
		}
		at = next
		if prefix == 7 || prefix == 5 {
			continue
		}
		if index == 0 {
			if _, _, at, ok = hpackString(block, at); !ok { // the name
				return nil
			}
		}
		value, packed, end, ok := hpackString(block, at)
		if !ok {
			return nil
		}
		if masked := maskText(value, packed); masked != "" {
			out := appendHPACKInt(slices.Clone(block[:at]), 7, len(masked))
			return append(append(out, masked...), block[end:]...)
		}
		at = end
	}
	return nil
}

// maskText returns a text with its rest put out of sight, and "" for what is none of the texts. packed says that it is coded.
func maskText(value []byte, packed bool) string {
	for i, text := range texts {
		if !packed {
			if bytes.HasPrefix(value, []byte(text)) {
				return text + strings.Repeat("*", len(value)-len(text))
			}
			continue
		}
		if !bytes.HasPrefix(value, packedTexts[i]) {
			continue
		}
		plain, err := hpack.HuffmanDecodeToString(value)
		if err == nil && strings.HasPrefix(plain, text) {
			return text + strings.Repeat("*", len(plain)-len(text))
		}
	}
	return ""
}

// hpackInt reads an integer of RFC 7541, section 5.1, that begins in the last bits of block[at].
func hpackInt(block []byte, at int, bits byte) (n, next int, ok bool) {
	if at >= len(block) {
		return 0, 0, false
	}
	most := 1<<bits - 1
	n = int(block[at]) & most
	if at++; n < most {
		return n, at, true
	}
	for shift := 0; at < len(block) && shift <= 14; shift += 7 {
		b := block[at]
		at++
		n += int(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, at, true
		}
	}
	return 0, 0, false
}

// appendHPACKInt appends an integer of RFC 7541, section 5.1, whose first byte has no other bits.
func appendHPACKInt(p []byte, bits byte, n int) []byte {
	most := 1<<bits - 1
	if n < most {
		return append(p, byte(n))
	}
	p = append(p, byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		p = append(p, byte(n&0x7f|0x80))
	}
	return append(p, byte(n))
}

// hpackString reads a string of RFC 7541, section 5.2, that begins at block[at]. packed says that it has a Huffman code.
func hpackString(block []byte, at int) (s []byte, packed bool, next int, ok bool) {
	n, next, ok := hpackInt(block, at, 7)
	if !ok || n > len(block)-next {
		return nil, false, 0, false
	}
	return block[next : next+n], block[at]&0x80 != 0, next + n, true
}
