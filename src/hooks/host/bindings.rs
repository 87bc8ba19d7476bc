//! What is generated from `wit/`: the types that cross the boundary, and the traits that the host implements.

wasmtime::component::bindgen!({
    path: "wit/0.1.0",
    world: "all",
    imports: {
        "tagfall:hooks/probe": async | trappable,
        "tagfall:hooks/exec": async | trappable,
        "tagfall:hooks/files": async | trappable,
        "tagfall:hooks/clock.sleep-ms": async | trappable,
        default: trappable,
    },
    exports: { default: async },
});
