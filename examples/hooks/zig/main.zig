//! A health check: what has nginx written to its error log? Looks at the end of the log and judges the worst line there.
//!
//! `args` in group.toml: `file` is the log, `tail_bytes` how much of its end is looked at.

const std = @import("std");

/// What the exit code says of a service; the last line of the output is the message.
const Health = enum(u8) { ok, warning, critical, unknown };

/// What stands on standard input. There is more: context, config, members.
const Told = struct {
    args: struct { file: []const u8 = "", tail_bytes: u32 = 16384 },
};

const Found = struct { health: Health, message: []const u8 };

pub fn main(init: std.process.Init) !void {
    const found = check(init) catch |err| Found{ .health = .unknown, .message = @errorName(err) };
    var buffer: [1024]u8 = undefined;
    var out = std.Io.File.stdout().writer(init.io, &buffer);
    try out.interface.print("{s}\n", .{found.message});
    try out.interface.flush();
    std.process.exit(@intFromEnum(found.health));
}

fn check(init: std.process.Init) !Found {
    const io, const arena = .{ init.io, init.arena.allocator() };
    var buffer: [4096]u8 = undefined;
    var in = std.Io.File.stdin().reader(io, &buffer);
    const text = try in.interface.allocRemaining(arena, .limited(1 << 20));
    const told = try std.json.parseFromSliceLeaky(Told, arena, text, .{ .ignore_unknown_fields = true });
    if (told.args.file.len == 0) return .{ .health = .unknown, .message = "`args` needs `file`, the error log of nginx" };
    const file = open(init, told.args.file) catch |err| switch (err) {
        error.NotGranted => return .{ .health = .unknown, .message = try std.fmt.allocPrint(
            arena,
            "may not read {s}: `[hooks.health-check]` in group.toml needs  allow = {{ read = [\"{s}\"] }}",
            .{ told.args.file, told.args.file },
        ) },
        else => return err,
    };
    defer file.close(io);
    return judge(try tail(io, arena, file, told.args.tail_bytes), arena);
}

/// Opens a file below the folder, or as the file, that `allow.read` grants.
fn open(init: std.process.Init, path: []const u8) !std.Io.File {
    // Behind the two outputs and the input.
    for (init.preopens.map.keys()[3..]) |granted| {
        const rest = std.mem.cutPrefix(u8, path, granted) orelse continue;
        const below = if (rest.len == 0) "." else std.mem.cutPrefix(u8, rest, "/") orelse continue;
        return init.preopens.get(granted).?.dir.openFile(init.io, below, .{});
    }
    return error.NotGranted;
}

/// The last bytes of a file, without the line that they begin in the middle of.
fn tail(io: std.Io, arena: std.mem.Allocator, file: std.Io.File, max: u32) ![]const u8 {
    const size = try file.length(io);
    const from = size -| max;
    const bytes = try arena.alloc(u8, @intCast(size - from));
    const got = try file.readPositionalAll(io, bytes, from);
    if (from == 0) return bytes[0..got];
    const begin = std.mem.indexOfScalar(u8, bytes[0..got], '\n') orelse return "";
    return bytes[begin + 1 .. got];
}

fn judge(log: []const u8, arena: std.mem.Allocator) !Found {
    var worst = Health.ok;
    var last: []const u8 = "";
    var count: u32 = 0;
    var lines = std.mem.tokenizeScalar(u8, log, '\n');
    while (lines.next()) |line| {
        const health = level(line);
        if (health == .ok) continue;
        count += 1;
        if (@intFromEnum(health) < @intFromEnum(worst)) continue;
        worst = health;
        last = line;
    }
    if (worst == .ok) return .{ .health = .ok, .message = "no errors in the log" };
    return .{ .health = worst, .message = try std.fmt.allocPrint(arena, "{d} errors, the last: {s}", .{ count, last }) };
}

fn level(line: []const u8) Health {
    for ([_][]const u8{ "[crit]", "[alert]", "[emerg]" }) |word| {
        if (std.mem.indexOf(u8, line, word) != null) return .critical;
    }
    return if (std.mem.indexOf(u8, line, "[error]") != null) .warning else .ok;
}
