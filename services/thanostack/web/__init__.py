"""The query page: static files and the routes that serve them.

    static/index.html   a form, one chart, one table
    static/app.js       state in the URL, requests to the query API
    static/chart.js     lines on a canvas
    static/format.js    numbers, times and labels as text
    static/style.css    light and dark

Everything is written here and served from the package: no build step, nothing from elsewhere, so it
works without a network.
"""
