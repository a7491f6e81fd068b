Redoc.init("openapi.json", { nativeScrollbars: true, hideDownloadButton: false }, document.getElementById("redoc"));
