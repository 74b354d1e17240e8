package admin

import (
	"context"
	"net/http"
	"strconv"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	"google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// channelz shows the data of grpc.channelz.v1 as JSON pages. The admin port speaks HTTP/1.1, so that curl, a browser and
// Prometheus reach it with nothing but its address; the gRPC service would need a listener of its own, or HTTP/2 without TLS
// and a gRPC client. So the service is registered with nobody but us, and asked in the process.
type channelz struct{ channelzpb.ChannelzServer }

// newChannelz returns gRPC's own implementation.
func newChannelz() *channelz {
	c := &channelz{}
	service.RegisterChannelzServiceToServer(c)
	return c
}

// RegisterService implements grpc.ServiceRegistrar.
func (c *channelz) RegisterService(_ *grpc.ServiceDesc, impl any) {
	if s, ok := impl.(channelzpb.ChannelzServer); ok {
		c.ChannelzServer = s
	}
}

const channelzPages = `/channelz/channels[?start=ID]                 client channels
/channelz/channel?id=ID
/channelz/subchannel?id=ID
/channelz/servers[?start=ID]
/channelz/server?id=ID
/channelz/sockets?server=ID[&start=ID]        connections of a server
/channelz/socket?id=ID
`

func (c *channelz) register(mux *http.ServeMux) {
	mux.HandleFunc("GET /channelz/{$}", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, channelzPages) })
	page(mux, "channels", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetTopChannels(ctx, &channelzpb.GetTopChannelsRequest{StartChannelId: id("start")})
	})
	page(mux, "channel", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetChannel(ctx, &channelzpb.GetChannelRequest{ChannelId: id("id")})
	})
	page(mux, "subchannel", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetSubchannel(ctx, &channelzpb.GetSubchannelRequest{SubchannelId: id("id")})
	})
	page(mux, "servers", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetServers(ctx, &channelzpb.GetServersRequest{StartServerId: id("start")})
	})
	page(mux, "server", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetServer(ctx, &channelzpb.GetServerRequest{ServerId: id("id")})
	})
	page(mux, "sockets", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetServerSockets(ctx, &channelzpb.GetServerSocketsRequest{ServerId: id("server"), StartSocketId: id("start")})
	})
	page(mux, "socket", func(ctx context.Context, id func(string) int64) (proto.Message, error) {
		return c.GetSocket(ctx, &channelzpb.GetSocketRequest{SocketId: id("id")})
	})
}

// page serves what one method of the service returns. A number that is missing is 0.
func page(mux *http.ServeMux, name string, ask func(context.Context, func(string) int64) (proto.Message, error)) {
	mux.HandleFunc("GET /channelz/"+name, func(w http.ResponseWriter, r *http.Request) {
		bad := ""
		answer, err := ask(r.Context(), func(key string) int64 {
			v := r.URL.Query().Get(key)
			if v == "" {
				return 0
			}
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				bad = key
			}
			return n
		})
		if bad != "" {
			text(w, http.StatusBadRequest, bad+" is not a number\n")
			return
		}
		if err != nil {
			text(w, http.StatusNotFound, status.Convert(err).Message()+"\n")
			return
		}
		body, err := protojson.MarshalOptions{Multiline: true}.Marshal(answer)
		if err != nil {
			text(w, http.StatusInternalServerError, "the answer cannot be shown\n")
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(append(body, '\n')) // whoever asked may have gone
	})
}
